mod corpus;
mod synthetic;
mod tokenizer;
