//! Translating: greedy and beam search with a model that has a decoder.
//!
//! Threads take sentences from one queue, the longest first, and others as some end, so that the matrix products stay as tall as
//! they were. Rows of a product know nothing of each other: neither the number of threads nor what else is translated changes a
//! hypothesis. Keys and values are kept from token to token.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};

use super::batch::{Batch, Direction};
use super::encoder::Encoder;
use super::layout::Side;
use super::trunk::{self, Activations, Caches, Context, Next, Part, Scratch, Shard, StepScratch};
use crate::kernels::vocabulary::{self, VocabularyScratch};

/// Hypotheses that a thread works on at a time: enough for the matrix products, few enough for the cache. Ours.
const ROWS: usize = 64;

/// How a translation is searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Hypotheses kept at every length; 1 is greedy search.
    pub beam: usize,
    /// Hypotheses are ranked by their log probability over length^penalty, where the length counts the end (Wu et al. 2016
    /// divide by another function of it; this is fairseq's and XLM's).
    pub length_penalty: f64,
    /// A translation has at most factor * (tokens of the source) + constant tokens.
    pub longest: (f64, usize),
    /// The token that begins and ends every sentence.
    pub end: u32,
}

/// One translation of a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Without the ends.
    pub tokens: Vec<u32>,
    /// ln p(tokens, end | source), in nats.
    pub log_probability: f64,
    /// What it is ranked by.
    pub score: f64,
    /// Whether it came to its end; the longest allowed are cut.
    pub ended: bool,
}

impl Encoder {
    /// The best hypotheses for each source, the best first, at most `beam` of them. `sources` holds each sentence between
    /// its ends, `languages` what each is to be translated into.
    ///
    /// # Errors
    /// A model without a decoder; sources that it cannot read.
    pub fn translate(
        &self,
        sources: &Batch,
        languages: &[u32],
        search: &Search,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        sources.validate(self.shape())?;
        ensure!(
            self.shape().decoder,
            "the model has no decoder; it cannot translate"
        );
        ensure!(
            languages.len() == sources.sequences(),
            "{} sentences, but {} languages to translate into",
            sources.sequences(),
            languages.len()
        );
        ensure!(
            search.beam >= 1 && (search.end as usize) < self.shape().vocabulary,
            "a search needs a beam of 1 or more and an end within the vocabulary"
        );
        if self.shape().settings.language_embeddings
            && let Some(language) = languages
                .iter()
                .find(|language| **language as usize >= self.shape().languages)
        {
            anyhow::bail!("the model has no language {language}");
        }
        let lengths: Vec<usize> = sources
            .offsets
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as usize)
            .collect();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&sentence| (std::cmp::Reverse(lengths[sentence]), sentence));
        let mut found: Vec<Mutex<Vec<Hypothesis>>> = Vec::new();
        found.resize_with(lengths.len(), Mutex::default);
        // A card trains; the search runs on the CPU.
        let home = self.home()?;
        let encoder = home.context(Side::Encoder, Direction::Bidirectional, None);
        let decoder = home.context(Side::Decoder, Direction::Causal, None);
        let pool = self.device().pool();
        // No thread takes all of few.
        let share = order.len().div_ceil(pool.threads()).max(1);
        let capacity = (ROWS / search.beam).clamp(1, share);
        let taken = AtomicUsize::new(0);
        pool.each(pool.threads().min(order.len()), |_| {
            let mut scratch = self.take_scratch();
            let searcher = Searcher::new((&encoder, &decoder), (sources, languages), search);
            let take = |number: usize| {
                let first = taken.fetch_add(number, Ordering::Relaxed).min(order.len());
                &order[first..order.len().min(first + number)]
            };
            searcher.run(capacity, take, &mut scratch, |sentence, hypotheses| {
                // Each sentence is taken once.
                if let Ok(mut place) = found[sentence].lock() {
                    *place = hypotheses;
                }
            });
            self.return_scratch(scratch);
        });
        Ok(found
            .into_iter()
            .map(|place| place.into_inner().unwrap_or_default())
            .collect())
    }
}

/// One thread's sentences, searched together.
struct Searcher<'a> {
    encoder: &'a Context<'a>,
    decoder: &'a Context<'a>,
    /// All sentences, and what each is to be translated into.
    all: &'a Batch,
    languages: &'a [u32],
    search: &'a Search,
    sentences: Vec<Sentence>,
    /// Keys and values of sources, and which of them no sentence uses.
    sources: Vec<Caches>,
    free_sources: Vec<usize>,
    /// Keys and values of hypotheses, and which of them no hypothesis uses.
    own: Vec<Caches>,
    free: Vec<usize>,
    step: StepScratch,
    vocabulary: VocabularyScratch,
}

struct Sentence {
    /// Its place among all.
    number: usize,
    /// Its place among `Searcher::sources`.
    source: usize,
    language: u32,
    /// Most tokens of a translation, its end among them.
    longest: usize,
    /// Tokens of its live hypotheses.
    length: usize,
    live: Vec<Live>,
    ended: Vec<Hypothesis>,
}

/// A hypothesis that goes on.
#[derive(Clone)]
struct Live {
    tokens: Vec<u32>,
    log_probability: f64,
    /// Its place among `Searcher::own`.
    caches: usize,
}

impl<'a> Searcher<'a> {
    fn new(
        (encoder, decoder): (&'a Context<'a>, &'a Context<'a>),
        (all, languages): (&'a Batch, &'a [u32]),
        search: &'a Search,
    ) -> Self {
        Self {
            encoder,
            decoder,
            all,
            languages,
            search,
            sentences: Vec::new(),
            sources: Vec::new(),
            free_sources: Vec::new(),
            own: Vec::new(),
            free: Vec::new(),
            step: StepScratch::default(),
            vocabulary: VocabularyScratch::default(),
        }
    }

    /// Encodes sentences and begins a hypothesis for each.
    fn admit(&mut self, numbers: &[usize], scratch: &mut Scratch) {
        let settings = &self.decoder.shape.settings;
        let mut batch = Batch::new();
        for &number in numbers {
            let offsets = &self.all.offsets;
            let rows = offsets[number] as usize..offsets[number + 1] as usize;
            batch.tokens.extend(&self.all.tokens[rows.clone()]);
            batch.positions.extend(&self.all.positions[rows.clone()]);
            batch.languages.extend(&self.all.languages[rows]);
            batch.offsets.push(batch.tokens.len() as u32);
        }
        let mut activations = Activations::for_evaluation();
        let shard = Shard {
            batch: &batch,
            sequences: 0..numbers.len(),
            tokens_before: 0,
            source: None,
        };
        trunk::forward(
            self.encoder,
            &shard,
            settings.layers,
            None,
            &mut activations,
            scratch,
        );
        let states = activations.states(settings.layers);
        for (pair, &number) in batch.offsets.windows(2).zip(numbers) {
            let rows = pair[0] as usize * settings.hidden..pair[1] as usize * settings.hidden;
            let caches = trunk::source_caches(self.decoder, &states[rows], &mut self.step);
            let source = match self.free_sources.pop() {
                Some(source) => {
                    self.sources[source] = caches;
                    source
                }
                None => {
                    self.sources.push(caches);
                    self.sources.len() - 1
                }
            };
            let (factor, constant) = self.search.longest;
            let longest = (factor * f64::from(pair[1] - pair[0])) as usize + constant;
            let own = self.caches();
            self.sentences.push(Sentence {
                number,
                source,
                language: self.languages[number],
                longest: longest.clamp(1, settings.positions),
                length: 0,
                live: vec![Live {
                    tokens: Vec::new(),
                    log_probability: 0.0,
                    caches: own,
                }],
                ended: Vec::new(),
            });
        }
    }

    /// Empty caches for a hypothesis.
    fn caches(&mut self) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            let layers = self.decoder.stack.layers.len();
            self.own.push(vec![Default::default(); layers]);
            self.own.len() - 1
        });
        for cache in &mut self.own[index] {
            cache.clear(self.decoder.shape.settings.hidden);
        }
        index
    }

    /// Searches what `take` gives, up to `capacity` sentences at a time, and hands each sentence's hypotheses to `give`.
    fn run<'n>(
        mut self,
        capacity: usize,
        take: impl Fn(usize) -> &'n [usize],
        scratch: &mut Scratch,
        give: impl Fn(usize, Vec<Hypothesis>),
    ) {
        let Some(output) = self.decoder.output() else {
            return;
        };
        let hidden = output.hidden;
        let block = vocabulary::block_rows(output.bias.len());
        // Several are encoded together.
        let few = capacity - (capacity / 4).max(1);
        loop {
            if self.sentences.len() <= few {
                let taken = take(capacity - self.sentences.len());
                if !taken.is_empty() {
                    self.admit(taken, scratch);
                }
            }
            let mut next = Vec::new();
            for sentence in &self.sentences {
                next.extend(sentence.live.iter().map(|live| Next {
                    token: live.tokens.last().copied().unwrap_or(self.search.end),
                    position: sentence.length as u32,
                    language: sentence.language,
                    own: live.caches,
                    source: sentence.source,
                }));
            }
            if next.is_empty() {
                break;
            }
            let states = trunk::step(
                self.decoder,
                &next,
                &mut self.own,
                &self.sources,
                &mut self.step,
                scratch,
            );
            // An end takes no place from the hypotheses that go on: one more than they may be has to be known of each.
            let wanted = 2 * self.search.beam;
            let mut candidates = Vec::with_capacity(next.len());
            for states in states.chunks(block * hidden) {
                let found = vocabulary::candidates(output, states, wanted, &mut self.vocabulary);
                candidates.extend(found);
            }
            scratch.clock.lap(Part::Vocabulary);
            let mut candidates = candidates.into_iter();
            for sentence in 0..self.sentences.len() {
                let own: Vec<Vec<(u32, f64)>> = candidates
                    .by_ref()
                    .take(self.sentences[sentence].live.len())
                    .collect();
                self.extend(sentence, &own);
            }
            let all = std::mem::take(&mut self.sentences);
            let (done, live): (Vec<_>, Vec<_>) = all
                .into_iter()
                .partition(|sentence| sentence.live.is_empty());
            self.sentences = live;
            for mut sentence in done {
                self.free_sources.push(sentence.source);
                sentence.ended.truncate(self.search.beam);
                give(sentence.number, sentence.ended);
            }
        }
    }

    /// The sentence's hypotheses after one more token, of which each has `candidates`, the best first.
    ///
    /// An end counts when it is among the `beam` best continuations (as in fairseq and transformers, which makes a beam of
    /// one greedy search). Differs: XLM takes ends among twice as many.
    fn extend(&mut self, sentence: usize, candidates: &[Vec<(u32, f64)>]) {
        let Search {
            beam,
            length_penalty,
            end,
            ..
        } = *self.search;
        self.sentences[sentence].length += 1;
        let length = self.sentences[sentence].length;
        let parents = std::mem::take(&mut self.sentences[sentence].live);
        let mut ranked: Vec<(f64, usize, u32)> = Vec::new();
        for (parent, (live, candidates)) in parents.iter().zip(candidates).enumerate() {
            let continued = candidates.iter().filter(|(_, nats)| nats.is_finite());
            ranked.extend(
                continued.map(|(token, nats)| (live.log_probability + nats, parent, *token)),
            );
        }
        // Equal ones stay in the order of their parents and of their tokens' probabilities.
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let longest = self.sentences[sentence].longest;
        let score = |log_probability: f64, length: usize| {
            log_probability / (length as f64).powf(length_penalty)
        };
        let mut chosen: Vec<(f64, usize, u32)> = Vec::new();
        for (rank, &(log_probability, parent, token)) in ranked.iter().enumerate() {
            let ended = token == end;
            if ended && rank >= beam {
                continue;
            }
            if ended || length == longest {
                let mut tokens = parents[parent].tokens.clone();
                if !ended {
                    tokens.push(token);
                }
                let hypothesis = Hypothesis {
                    tokens,
                    log_probability,
                    score: score(log_probability, length),
                    ended,
                };
                let ended = &mut self.sentences[sentence].ended;
                let place = ended.partition_point(|other| other.score >= hypothesis.score);
                ended.insert(place, hypothesis);
                if length == longest && rank + 1 >= beam {
                    break;
                }
            } else {
                chosen.push((log_probability, parent, token));
                if chosen.len() == beam {
                    break;
                }
            }
        }
        let best_live = chosen.first().map(|chosen| chosen.0);
        let worst_kept = self.sentences[sentence]
            .ended
            .get(beam - 1)
            .map(|hypothesis| hypothesis.score);
        // No continuation of the best can come before those that have ended.
        let settled = match (best_live, worst_kept) {
            (Some(best), Some(worst)) => {
                worst >= score(best, length + 1).max(score(best, longest.max(length + 1)))
            }
            (None, _) => true,
            (Some(_), None) => false,
        };
        if settled {
            chosen.clear();
        }
        self.sentences[sentence].live = self.inherit(&parents, &chosen);
    }

    /// Hypotheses with their parents' caches: the first child of each takes them, the others get copies.
    fn inherit(&mut self, parents: &[Live], chosen: &[(f64, usize, u32)]) -> Vec<Live> {
        let mut taken = vec![false; parents.len()];
        let mut live = Vec::with_capacity(chosen.len());
        for &(log_probability, parent, token) in chosen {
            let of_parent = parents[parent].caches;
            let caches = if std::mem::replace(&mut taken[parent], true) {
                let copy = self.caches();
                let original = std::mem::take(&mut self.own[of_parent]);
                for (copy, original) in self.own[copy].iter_mut().zip(&original) {
                    copy.copy_from(original);
                }
                self.own[of_parent] = original;
                copy
            } else {
                of_parent
            };
            let mut tokens = parents[parent].tokens.clone();
            tokens.push(token);
            live.push(Live {
                tokens,
                log_probability,
                caches,
            });
        }
        let unused = parents.iter().zip(taken).filter(|(_, taken)| !taken);
        self.free.extend(unused.map(|(parent, _)| parent.caches));
        live
    }
}
