mod data;
mod hub;
mod synthetic;
