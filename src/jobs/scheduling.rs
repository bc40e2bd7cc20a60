//! Schedules: jobs that are made again and again.

use uuid::Uuid;

use super::calendar;
use super::error::Error;
use super::service::{Jobs, Scope};
use super::submission::{Calendar, Made, Submission};
use crate::storage::jobs::{Key, Schedule, Submitted};

impl Jobs {
    pub async fn schedules(&self, scope: Scope<'_>) -> Result<Vec<Schedule>, Error> {
        Ok(self.0.table.schedules(scope.tenant()).await?)
    }

    /// # Errors
    /// When there is none that may be seen.
    pub async fn remove_schedule(&self, id: &str, scope: Scope<'_>) -> Result<(), Error> {
        let removed = self.0.table.remove_schedule(id, scope.tenant()).await?;
        if removed { Ok(()) } else { Err(Error::ScheduleNotFound(id.to_owned())) }
    }

    pub(super) async fn add_schedule(
        &self,
        tenant: &str,
        submission: Submission,
        when: &Calendar,
        key: Option<&Key>,
    ) -> Result<Made, Error> {
        calendar::check(&when.cron).map_err(Error::Calendar)?;
        if let Some(after) = submission.after.first() {
            return Err(Error::Calendar(format!("a job that is made again and again cannot come after one job (`{after}`)")));
        }
        let now_ms = self.0.clock.unix_ms();
        let schedule = Schedule {
            id: Uuid::now_v7().to_string(),
            name: if submission.name.is_empty() { submission.kind.clone() } else { submission.name.clone() },
            tenant: tenant.to_owned(),
            cron: when.cron.clone(),
            missed: when.missed,
            job: serde_json::to_value(Submission { schedule: None, ..submission }).unwrap_or_default(),
            next_at_ms: calendar::next(&when.cron, now_ms),
            last_at_ms: None,
            created_at_ms: now_ms,
        };
        let most = self.0.config.max_schedules;
        match self.0.table.add_schedule(&schedule, key, most).await? {
            Submitted::Before(id) => {
                let all = self.schedules(Scope::Tenant(tenant)).await?;
                let found = all.into_iter().find(|schedule| schedule.id == id).ok_or(Error::ScheduleNotFound(id))?;
                Ok(Made::Schedule { schedule: Box::new(found), before: true })
            }
            Submitted::OtherBody => Err(Error::OtherBody),
            Submitted::Full => Err(Error::TooManySchedules { most }),
            Submitted::New | Submitted::Missing(_) => Ok(Made::Schedule { schedule: Box::new(schedule), before: false }),
        }
    }
}
