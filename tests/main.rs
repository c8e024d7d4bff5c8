mod data;
mod hub;
