//! What pretrained models are asked as they are, without training anything on top: one file each.

pub mod perplexity;
pub mod word_embeddings;
