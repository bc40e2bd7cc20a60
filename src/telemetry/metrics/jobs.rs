//! Background jobs.

use super::{JOB_ARTIFACT_BYTES, JOB_ATTEMPTS, JOBS, JOBS_SUBMITTED, Metrics, number};

impl Metrics {
    pub(super) fn start_jobs_at_zero(&self) {
        self.0.registry.counter(&JOBS_SUBMITTED, &[]).absolute(0);
        self.0.registry.gauge(&JOB_ARTIFACT_BYTES, &[]).set(0.0);
    }

    pub fn job_submitted(&self) {
        self.0.registry.counter(&JOBS_SUBMITTED, &[]).increment(1);
    }

    /// An attempt has ended; the outcome is a word from a closed set, the kind the name of one that there is.
    pub fn job_attempt(&self, kind: &str, outcome: &'static str) {
        self.0.registry.counter(&JOB_ATTEMPTS, &[kind, outcome]).increment(1);
    }

    /// How many jobs stand so.
    pub fn jobs(&self, state: &str, count: u64) {
        self.0.registry.gauge(&JOBS, &[state]).set(number(count));
    }

    pub fn job_artifact_bytes(&self, bytes: u64) {
        self.0.registry.gauge(&JOB_ARTIFACT_BYTES, &[]).set(number(bytes));
    }
}
