//! Benchmarks: what they measure with and how they report. The groups are in `src/bin/bench/`.

pub mod echo;
pub mod load;
pub mod report;
