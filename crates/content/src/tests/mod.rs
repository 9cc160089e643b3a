//! Tests that need more than the public API: forced copies, small thresholds, full devices.

mod full;
mod model;
mod moves;
mod provisional;
