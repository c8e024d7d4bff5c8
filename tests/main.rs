mod claims;
mod sample;
mod scores;
mod statistics;
mod tables;
