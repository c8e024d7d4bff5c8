mod objectives;
mod pretrain;
mod synthetic;
