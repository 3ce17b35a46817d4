//! The steps of a sync that reads the tables back: some Services at a time, so that changes are
//! committed meanwhile.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::affinity::Reaped;
use super::audit::{AuditJob, Audited, Unknown, sets_to_audit};
use super::drift::Drift;
use super::family::SERVICES_PER_STEP;
use super::metrics::SyncExtent;
use super::mode::{SyncMode, TableToRead, table_to_read};
use super::sync_once::{CompletedSync, Progress, SyncAttempt};
use super::{
    FamilyState, KnownKeys, ReadBackStep, ServicesToRead, State, SyncPlan, Syncer, Transactions,
};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, FamilyCommit, Kernel, KeyReader};
use crate::per_family;
use crate::planner::diff::{KernelView, Op, Operation, TableStatus, Transaction};
use crate::planner::dual::Dual;
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::Program;

/// The most elements of sets that are dumped within a sync: some 50 ms.
const AUDIT_WITHIN_SYNC: usize = 20_000;

/// The number of read-backs in a row that start over because the ruleset changed meanwhile, before
/// a rejection counts as one of the Service.
const MAX_RESTARTS: u32 = 3;

/// The fewest Services of a step that two threads read.
const SERVICES_OF_TWO_THREADS: usize = 64;

/// A read-back of the tables that is not complete.
pub(super) struct Reading {
    started: Instant,
    in_kernel: Duration,
    operations: usize,
    rebuilt: bool,
    /// The generation of the ruleset if only this read-back changes it.
    generation: Option<u32>,
    /// Whether another process changed the tables meanwhile.
    pub(super) is_outdated: bool,
}

impl Reading {
    /// Returns all steps so far as one attempt.
    pub(super) fn whole(&self) -> SyncAttempt {
        SyncAttempt {
            extent: SyncExtent::Full,
            started: self.started,
            in_kernel: self.in_kernel,
        }
    }
}

/// What a step found.
pub enum StepStatus<A: Address> {
    /// The elements of the step's Services; `None` if there are none to read.
    Read(Option<ReadBackStep<A>>),
    /// The table has an element that kube-dnat does not make.
    Foreign(String),
}

/// What a step found in the tables of both families.
pub type StepStatuses = Dual<StepStatus<Ipv4Addr>, StepStatus<Ipv6Addr>>;

impl<A: Address> StepStatus<A> {
    /// Returns what two halves of a step found.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Foreign(reason), _) | (_, Self::Foreign(reason)) => Self::Foreign(reason),
            (Self::Read(step), Self::Read(None)) | (Self::Read(None), Self::Read(step)) => {
                Self::Read(step)
            }
            (Self::Read(Some(mut step)), Self::Read(Some(other))) => {
                step.append(other);
                Self::Read(Some(step))
            }
        }
    }
}

impl Syncer {
    /// Reads what the next plan of a read-back needs; returns the plan, and the programs of the
    /// tables that are rebuilt.
    pub(super) fn plan_read_back(&mut self) -> Result<(SyncPlan, Dual<Option<Program>>), Error> {
        let mut rebuilds = per_family!(self.state.families.as_ref(), |_| None);
        if self.reading.is_none() {
            rebuilds = self.begin_reading()?;
        }
        let statuses = read_next(&mut self.kernel, &self.state, SERVICES_PER_STEP)?;
        let programs = self.state.programs();
        let families = self.state.families.as_mut().zip(statuses);
        let families = families.zip(rebuilds.as_mut().zip(programs));
        let steps = per_family!(families, |((family, status), (rebuild, program))| {
            match status {
                StepStatus::Read(step) => step,
                StepStatus::Foreign(reason) => {
                    warn!(event = %LogEvent::TableReplaced, family = %family.family(), %reason, "the table is of another version or of other settings; replacing it");
                    family.cancel_read_back();
                    *rebuild = Some(program);
                    None
                }
            }
        });
        self.state.adopt(steps);
        let views = Dual {
            ipv4: view(rebuilds.ipv4.as_ref()),
            ipv6: rebuilds.ipv6.as_ref().map(|rebuild| view(rebuild.as_ref())),
        };
        Ok((self.state.plan(views), rebuilds))
    }

    /// Begins a read-back: reads the shape of the tables, and what is not of Services.
    fn begin_reading(&mut self) -> Result<Dual<Option<Program>>, Error> {
        self.state.cancel_read_back();
        self.auditor.cancel();
        let (tables, rebuilds) = per_family!(self.state.programs(), |program| {
            match table_to_read(&mut self.kernel, program)? {
                TableToRead::Found(table) => (Some(table), None),
                TableToRead::Rebuild(program) => (None, Some(program)),
            }
        })
        .unzip();
        self.state.begin_read_back(tables);
        self.reading = Some(Reading {
            started: Instant::now(),
            in_kernel: Duration::ZERO,
            operations: 0,
            rebuilt: per_family!(rebuilds.as_ref(), |rebuild| rebuild.is_some()).any(),
            generation: self.kernel.generation().ok(),
            is_outdated: false,
        });
        Ok(rebuilds)
    }

    /// Deletes elements first that are in the tables unknown to the applied state, at keys that a
    /// transaction adds.
    pub(super) fn replace_unknown(&mut self, transactions: &mut Transactions) -> Result<(), Error> {
        let is_audited = self.auditor.is_pending();
        let families = self.state.families.as_ref().zip(transactions.as_mut());
        per_family!(families, |(family, transaction)| {
            if is_audited || family.is_reading() {
                replace_unknown(&mut self.kernel, transaction)?;
            }
        });
        Ok(())
    }

    /// Records a committed step of a read-back; returns whether others follow.
    pub(super) fn step_committed(&mut self, commit: &Commit, in_kernel: Duration) -> Progress {
        let Some(reading) = &mut self.reading else {
            return Progress::Complete;
        };
        reading.operations += commit.len();
        reading.in_kernel += in_kernel;
        if !commit.is_empty() {
            reading.generation = reading.generation.map(|before| before.wrapping_add(1));
        }
        let unread = self.state.unread_count();
        self.metrics.unread(unread);
        if unread > 0 {
            Progress::ReadsOn
        } else {
            Progress::Complete
        }
    }

    /// Ends a read-back of which every Service is read.
    pub(super) fn end_reading(&mut self) -> Result<Option<CompletedSync>, Error> {
        let Some(transactions) = self.state.plan_end_of_read_back() else {
            return Ok(None);
        };
        let mut operations = self.delete(transactions)?;
        let was_read = per_family!(self.state.families.as_ref(), |family| family.is_reading());
        let known = self.state.end_read_back();
        operations += self.audit(was_read.clone(), known)?;
        let Some(reading) = self.reading.take() else {
            return Ok(None);
        };
        if reading.is_outdated {
            self.drift.request_audit();
        }
        self.reading_restarts = 0;
        self.mode = SyncMode::Incremental;
        operations += reading.operations;
        if !self.auditor.is_pending() {
            self.conclude_repair(operations);
        }
        let is_first = !self.committed_once;
        per_family!(self.state.families.as_ref().zip(was_read), |(
            family,
            was_read,
        )| {
            if was_read {
                log_table_read(family, is_first);
            }
        });
        Ok(Some(CompletedSync {
            operations,
            rebuilt: reading.rebuilt,
            elapsed: reading.started.elapsed(),
        }))
    }

    pub(super) fn conclude_repair(&mut self, operations: usize) {
        if self.drift.conclude_repair(operations) == Drift::Repaired {
            self.metrics.repaired();
        }
    }

    /// Deletes what only a dump shows: at once if the sets are small, or later; returns the number
    /// of operations so far.
    fn audit(&mut self, was_read: Dual<bool>, known: Dual<KnownKeys>) -> Result<usize, Error> {
        let families = self.state.families.as_ref().zip(was_read);
        let (sets, elements) = per_family!(families, |(family, was_read)| {
            if was_read {
                sets_to_audit(&mut self.kernel, family)?
            } else {
                (Vec::new(), 0)
            }
        })
        .unzip();
        let elements: usize = elements.into_iter().sum();
        let job = AuditJob { sets, known };
        if job.is_empty() {
            return Ok(0);
        }
        if elements > AUDIT_WITHIN_SYNC {
            debug!(event = %LogEvent::TablesAudited, elements, "dumping large sets in the background");
            self.auditor.submit(job);
            return Ok(0);
        }
        let audited = job.run(&mut self.kernel)?;
        self.delete_unknown(audited)
    }

    /// Concludes an audit in the background, if nothing is pending.
    pub(super) fn conclude_audit(&mut self) {
        if !self.is_clean() {
            return;
        }
        let Some(result) = self.auditor.take() else {
            return;
        };
        match result.and_then(|audited| self.delete_unknown(audited)) {
            Ok(operations) => {
                self.conclude_repair(operations);
                debug!(event = %LogEvent::TablesAudited, operations, "dumped the large sets, and deleted what no Service needs");
                if self.reap_all() == Reaped::All {
                    self.all_reaped();
                }
                self.cleaner.clean(&mut self.state, Reaped::Pending);
            }
            Err(error) => {
                warn!(event = %LogEvent::TablesAudited, %error, "cannot find or delete elements that no Service needs; reading the tables back");
                self.drift.request_audit();
            }
        }
    }

    /// Deletes the elements that no Service needs; returns the number of operations.
    fn delete_unknown(&mut self, audited: Audited) -> Result<usize, Error> {
        let has_others = per_family!(audited.as_ref(), |unknown| unknown.has_others);
        if has_others.any() {
            let reason = "an element of a set is not one of ours";
            warn!(event = %LogEvent::TableReplaced, reason, "the table is of another version or of other settings; replacing it");
            self.cancel_reading();
            self.mode = SyncMode::Rebuild;
            return Ok(0);
        }
        let families = self.state.families.as_mut().zip(audited);
        let transactions = per_family!(families, |(family, unknown)| unneeded(family, unknown));
        self.delete(transactions)
    }

    /// Commits transactions that only delete; returns the number of operations.
    fn delete(&mut self, transactions: Transactions) -> Result<usize, Error> {
        let commit: Commit =
            per_family!(transactions, |transaction| FamilyCommit::from(transaction));
        self.commit(&commit)?;
        Ok(commit.len())
    }

    /// Starts the read-back over after a rejection, if the ruleset changed meanwhile; returns
    /// whether it does.
    pub(super) fn restart_reading(&mut self) -> bool {
        let Some(reading) = &self.reading else {
            return false;
        };
        let generation = self.kernel.generation().ok();
        let restarts = generation != reading.generation && self.reading_restarts < MAX_RESTARTS;
        if restarts {
            self.reading_restarts += 1;
            self.cancel_reading();
        }
        restarts
    }

    /// Ends a read-back early.
    pub(super) fn cancel_reading(&mut self) {
        self.reading = None;
        self.metrics.unread(0);
        self.state.cancel_read_back();
        self.auditor.cancel();
    }
}

/// Logs that a table was read back; `is_first` is whether this process has committed nothing yet.
fn log_table_read<A: Address>(family: &FamilyState<A>, is_first: bool) {
    let elements: usize = family.applied().element_counts().values().sum();
    if is_first {
        info!(event = %LogEvent::TableAdopted, family = %A::FAMILY, elements, "adopted the table");
    } else {
        debug!(event = %LogEvent::TableRead, family = %A::FAMILY, elements, "read the table back");
    }
}

/// Returns the view of a family in a read-back: its applied state is what is known.
fn view(rebuild: Option<&Program>) -> KernelView {
    match rebuild {
        Some(_) => KernelView::Empty,
        None => KernelView::Applied,
    }
}

/// Reads the elements of the next Services: of all that changed, and at most `others` more.
///
/// # Errors
/// The kernel does not answer.
pub fn read_next(kernel: &mut Kernel, state: &State, others: usize) -> Result<StepStatuses, Error> {
    let (services, second) =
        per_family!(state.next_services(others), |services| halves(services)).unzip();
    let [mut reader, mut second_reader] = kernel.key_readers()?;
    if per_family!(second.as_ref(), |services| services.is_empty()).all() {
        return read_steps(&mut reader, state, &services);
    }
    thread::scope(|scope| {
        let read_second = || read_steps(&mut second_reader, state, &second);
        let thread = thread::Builder::new().name("read-back".to_owned());
        let thread = thread.spawn_scoped(scope, read_second);
        let first = read_steps(&mut reader, state, &services);
        let second = match thread {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system permits no other thread.
            Err(_) => read_steps(&mut reader, state, &second),
        };
        let statuses = first?.zip(second?);
        Ok(per_family!(statuses, |(first, second)| first.and(second)))
    })
}

/// Splits Services in two halves for two threads, unless they are few.
fn halves(mut services: Vec<ServiceName>) -> (Vec<ServiceName>, Vec<ServiceName>) {
    let second = if services.len() < SERVICES_OF_TWO_THREADS {
        Vec::new()
    } else {
        services.split_off(services.len() / 2)
    };
    (services, second)
}

/// Reads the elements of these Services.
fn read_steps(
    reader: &mut KeyReader<'_>,
    state: &State,
    services: &ServicesToRead,
) -> Result<StepStatuses, Error> {
    Ok(per_family!(state.steps(services), |step| read_step(
        reader, step
    )?))
}

/// Reads the elements of a step's Services.
fn read_step<A: Address>(
    reader: &mut KeyReader<'_>,
    step: Option<ReadBackStep<A>>,
) -> Result<StepStatus<A>, Error> {
    let Some(mut step) = step else {
        return Ok(StepStatus::Read(None));
    };
    loop {
        let keys = step.keys();
        if keys.is_empty() {
            return Ok(StepStatus::Read(Some(step)));
        }
        match reader.read(&keys)? {
            TableStatus::Ours(elements) => step.add(elements),
            TableStatus::Foreign(reason) => return Ok(StepStatus::Foreign(reason)),
            TableStatus::Missing => return Ok(StepStatus::Foreign("it is missing".to_owned())),
        }
    }
}

/// Deletes elements first that a transaction adds although the table has their keys.
fn replace_unknown<A: Address>(
    kernel: &mut Kernel,
    transaction: &mut Transaction<A>,
) -> Result<(), Error> {
    let keys = transaction.added_keys();
    if keys.is_empty() {
        return Ok(());
    }
    if let TableStatus::Ours(found) = kernel.read_keys(&keys)? {
        transaction.delete_first(&found);
    }
    Ok(())
}

/// Returns the transaction that deletes those of the unknown elements that are not applied.
fn unneeded<A: Address>(family: &mut FamilyState<A>, unknown: Unknown<A>) -> Transaction<A> {
    let elements = family.not_applied(unknown.elements);
    let operations = elements.iter().map(|element| Operation {
        op: Op::Delete(element.set, element.key),
        service: None,
    });
    let operations = operations.collect();
    family.mark_dirty_elements(elements);
    Transaction { operations }
}
