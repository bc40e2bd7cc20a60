//! Where the time of a GPU goes: stretches of work between marks, timed by the GPU itself. Off unless asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};

use super::error::{Result, doing};

/// Marks since [`Trace::start`].
#[derive(Default)]
pub(super) struct Trace {
    marks: Mutex<Option<Vec<(&'static str, CudaEvent)>>>,
}

impl Trace {
    /// Forgets what was marked, and marks from here on.
    pub(super) fn start(&self, stream: &Arc<CudaStream>) -> Result<()> {
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        self.mark(stream, "start")
    }

    pub(super) fn mark(&self, stream: &Arc<CudaStream>, name: &'static str) -> Result<()> {
        if let Some(marks) = self.marks.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let event = doing("mark a time", stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)))?;
            marks.push((name, event));
        }
        Ok(())
    }

    /// Milliseconds of each kind of work, each counted from the mark before. Waits for the last, and ends marking.
    pub(super) fn finish(&self) -> Result<BTreeMap<&'static str, f32>> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let mut spent = BTreeMap::new();
        for pair in marks.windows(2) {
            let (_, from) = &pair[0];
            let (name, to) = &pair[1];
            *spent.entry(*name).or_insert(0.0) += doing("tell a time", from.elapsed_ms(to))?;
        }
        Ok(spent)
    }
}
