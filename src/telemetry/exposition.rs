//! How metrics are declared, kept and written out in Prometheus' text format.
//!
//! Each [`Registry`] is its own: several services in one process do not mix their numbers. What is written is complete and in a
//! fixed order: a metric that has no series yet still has its HELP and TYPE. Names are not this file's business.
//!
//! A series is looked up many times for each request, so the handles are kept: a look-up makes nothing and locks nobody out.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, RwLock};

use hashbrown::Equivalent;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// What a metric is, as Prometheus calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Everything there is to know of a metric before it has a value.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricSpec {
    pub name: &'static str,
    pub kind: Kind,
    /// What one is: `seconds`, `bytes`, `tokens`, `requests`, …
    pub unit: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    /// Upper bounds, in the unit; empty unless a histogram.
    pub buckets: &'static [f64],
}

impl MetricSpec {
    pub(super) const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit, help, labels: &[], buckets: &[] }
    }

    pub(super) const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit, help, labels: &[], buckets: &[] }
    }

    pub(super) const fn histogram(name: &'static str, unit: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { name, kind: Kind::Histogram, unit, help, labels: &[], buckets }
    }

    pub(super) const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), values.len(), "{}: one value for each label", self.name);
        let labels: Vec<_> = self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(self.name, labels)
    }
}

/// One series, by the metric's name and the values of its labels.
#[derive(PartialEq, Eq)]
struct Series {
    name: &'static str,
    values: Box<[Box<str>]>,
}

/// The same, borrowed.
struct Named<'a> {
    name: &'static str,
    values: &'a [&'a str],
}

/// The same for both, or one is not found by the other.
fn hash<'a, H: Hasher>(name: &str, values: impl Iterator<Item = &'a str>, state: &mut H) {
    name.hash(state);
    values.for_each(|value| value.hash(state));
}

impl Series {
    fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|value| &**value)
    }
}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.name, self.values(), state);
    }
}

impl Hash for Named<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.name, self.values.iter().copied(), state);
    }
}

impl Equivalent<Series> for Named<'_> {
    fn equivalent(&self, series: &Series) -> bool {
        self.name == series.name && self.values.iter().copied().eq(series.values())
    }
}

/// The handles of the series that were used.
struct Handles<T>(RwLock<hashbrown::HashMap<Series, T>>);

impl<T: Clone> Handles<T> {
    fn of(&self, spec: &MetricSpec, values: &[&str], register: impl FnOnce(&Key) -> T) -> T {
        let named = Named { name: spec.name, values };
        if let Some(handle) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&named) {
            return handle.clone();
        }
        let handle = register(&spec.key(values));
        let series = Series { name: spec.name, values: values.iter().map(|value| (*value).into()).collect() };
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(series, handle.clone());
        handle
    }
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

/// The values of a set of metrics.
pub(super) struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    specs: &'static [&'static MetricSpec],
    counters: Handles<Counter>,
    gauges: Handles<Gauge>,
    histograms: Handles<Histogram>,
}

/// Where a metric comes from means nothing to Prometheus.
const METADATA: Metadata<'static> = Metadata::new("arriero", Level::INFO, None);

impl Registry {
    pub(super) fn new(specs: &'static [&'static MetricSpec]) -> Self {
        let mut builder = PrometheusBuilder::new();
        for spec in specs.iter().filter(|spec| spec.kind == Kind::Histogram) {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(spec.name.to_owned()), spec.buckets)
                .expect("the declared buckets are not empty, as a test checks");
        }
        let recorder = builder.build_recorder();
        let (counters, gauges, histograms) = (Handles::default(), Handles::default(), Handles::default());
        Self { handle: recorder.handle(), recorder, specs, counters, gauges, histograms }
    }

    pub(super) fn counter(&self, spec: &MetricSpec, labels: &[&str]) -> Counter {
        self.counters.of(spec, labels, |key| self.recorder.register_counter(key, &METADATA))
    }

    pub(super) fn gauge(&self, spec: &MetricSpec, labels: &[&str]) -> Gauge {
        self.gauges.of(spec, labels, |key| self.recorder.register_gauge(key, &METADATA))
    }

    pub(super) fn histogram(&self, spec: &MetricSpec, labels: &[&str]) -> Histogram {
        self.histograms.of(spec, labels, |key| self.recorder.register_histogram(key, &METADATA))
    }

    /// Folds new observations into the buckets, which otherwise only happens when someone reads them.
    pub(super) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything, in the order of the declarations.
    pub(super) fn render(&self) -> String {
        arrange(self.specs, &self.handle.render())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("metrics", &self.specs.len()).finish_non_exhaustive()
    }
}

/// Puts the samples under the HELP and TYPE that were declared. `samples` has one block a metric, each ending in an empty line.
fn arrange(specs: &[&MetricSpec], samples: &str) -> String {
    let blocks: HashMap<&str, &str> = samples.split("\n\n").filter_map(|block| Some((name_of(block)?, block))).collect();
    let mut text = String::with_capacity(samples.len() + specs.len() * 128);
    for spec in specs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {}", spec.name, spec.help, spec.name, spec.kind.as_str());
        let mut lines: Vec<_> = blocks.get(spec.name).map(|block| samples_of(block).collect()).unwrap_or_default();
        if spec.kind != Kind::Histogram {
            lines.sort_unstable(); // the buckets of a histogram have their own order
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The name in the TYPE line of a block.
fn name_of(block: &str) -> Option<&str> {
    block.lines().find_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
}

fn samples_of(block: &str) -> impl Iterator<Item = &str> {
    block.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    static A: MetricSpec = MetricSpec::counter("a_total", "things", "Things.").by(&["which"]);
    static B: MetricSpec = MetricSpec::gauge("b", "things", "Now.");
    static C: MetricSpec = MetricSpec::histogram("c_seconds", "seconds", "Spans.", &[0.5, 1.0]);
    static SPECS: &[&MetricSpec] = &[&A, &B, &C];

    #[test]
    fn a_metric_without_a_series_still_says_what_it_is() {
        assert_eq!(
            Registry::new(SPECS).render(),
            "# HELP a_total Things.\n# TYPE a_total counter\n# HELP b Now.\n# TYPE b gauge\n# HELP c_seconds Spans.\n# TYPE c_seconds histogram\n"
        );
    }

    #[test]
    fn series_come_sorted_under_their_metric_and_odd_label_values_are_escaped() {
        let registry = Registry::new(SPECS);
        registry.counter(&A, &["z"]).increment(2);
        registry.counter(&A, &["\"a\n\n# TYPE b\\"]).increment(1);
        registry.histogram(&C, &[]).record(0.7);
        let text = registry.render();
        assert_eq!(
            text,
            "# HELP a_total Things.\n# TYPE a_total counter\n\
             a_total{which=\"\\\"a\\n\\n# TYPE b\\\\\"} 1\na_total{which=\"z\"} 2\n\
             # HELP b Now.\n# TYPE b gauge\n\
             # HELP c_seconds Spans.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.5\"} 0\nc_seconds_bucket{le=\"1\"} 1\nc_seconds_bucket{le=\"+Inf\"} 1\nc_seconds_sum 0.7\nc_seconds_count 1\n"
        );
    }

    #[test]
    fn two_registries_do_not_share_their_numbers() {
        let (one, other) = (Registry::new(SPECS), Registry::new(SPECS));
        one.gauge(&B, &[]).set(3.0);
        assert!(one.render().contains("\nb 3\n"));
        assert!(!other.render().contains("\nb 3\n"));
    }
}
