mod fake_results;
mod html;
mod notebook;
mod plots;
