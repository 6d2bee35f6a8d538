//! The counters that the loops keep, and their Prometheus names. What can be read from the
//! database (jobs, budget) is read when it is asked for.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Label names and values. Tenants, kinds of call and outcomes are few: machines never appear.
pub type Labels = Vec<(&'static str, String)>;

/// Calls that an alert watches.
const WATCHED_CALLS: [(&str, &str); 6] = [
    ("scan", "created"),
    ("scan", "throttled"),
    ("scan", "forbidden"),
    ("scan", "unknown"),
    ("sign_in", "ok"),
    ("sign_in", "failed"),
];

/// What becomes of files.
const FILE_RESULTS: [&str; 4] = ["taken", "held", "already_taken", "rejected"];

/// The counters of one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    files: Family<Labels, Counter>,
    machines: Family<Labels, Counter>,
    left_in_place: Counter,
    intake_over_limit: Gauge,
    unreadable_folders: Gauge,
    intake_stopped: Gauge,
    archive_failing: Gauge,
    credentials: Family<Labels, Gauge>,
}

fn durations() -> Histogram {
    Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let new = Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(durations),
            files: Family::default(),
            machines: Family::default(),
            left_in_place: Counter::default(),
            intake_over_limit: Gauge::default(),
            unreadable_folders: Gauge::default(),
            intake_stopped: Gauge::default(),
            archive_failing: Gauge::default(),
            credentials: Family::default(),
        };
        // Of a file that names no tenant.
        let labels = vec![("tenant", String::new()), ("result", "rejected".to_owned())];
        new.files.get_or_create(&labels).inc_by(0);
        new
    }
}

impl Metrics {
    /// There is this tenant. What an alert watches is counted from zero on: the first of a kind would be no increase
    /// of a counter that was not there before.
    pub fn tenant(&self, tenant: &str) {
        let of = |name, value: &str| vec![("tenant", tenant.to_owned()), (name, value.to_owned())];
        for (call, outcome) in WATCHED_CALLS {
            let mut labels = of("call", call);
            labels.push(("outcome", outcome.to_owned()));
            self.calls.get_or_create(&labels).inc_by(0);
        }
        for result in FILE_RESULTS {
            self.files.get_or_create(&of("result", result)).inc_by(0);
        }
    }

    /// A call has ended.
    pub fn call(&self, tenant: &str, call: &'static str, outcome: &str, took: Duration) {
        let (tenant, call) = (("tenant", tenant.to_owned()), ("call", call.to_owned()));
        self.calls.get_or_create(&vec![tenant.clone(), call.clone(), ("outcome", outcome.to_owned())]).inc();
        self.durations.get_or_create(&vec![tenant, call]).observe(took.as_secs_f64());
    }

    /// A file has been dealt with.
    pub fn file(&self, tenant: &str, result: &str) {
        self.files.get_or_create(&vec![("tenant", tenant.to_owned()), ("result", result.to_owned())]).inc();
    }

    /// Lines of a file have been dealt with.
    pub fn machines(&self, tenant: &str, result: &str, lines: u64) {
        let labels = vec![("tenant", tenant.to_owned()), ("result", result.to_owned())];
        self.machines.get_or_create(&labels).inc_by(lines);
    }

    /// Something in the drop folder is no regular file, or one that cannot be taken now.
    pub fn left_in_place(&self, count: u64) {
        self.left_in_place.inc_by(count);
    }

    /// So many files wait because their owner has dropped more than are taken within an hour.
    pub fn intake_over_limit(&self, files: u64) {
        self.intake_over_limit.set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// So many drop folders cannot be read.
    pub fn unreadable_folders(&self, folders: usize) {
        self.unreadable_folders.set(i64::try_from(folders).unwrap_or(i64::MAX));
    }

    /// Whether no file is taken, for want of room.
    pub fn intake_stopped(&self, stopped: bool) {
        self.intake_stopped.set(i64::from(stopped));
    }

    /// Whether what is old cannot be archived, and so is not removed.
    pub fn archive_failing(&self, failing: bool) {
        self.archive_failing.set(i64::from(failing));
    }

    /// When the credentials end of those tenants where that is known, in seconds since 1970: it stays
    /// right while this machine's clock is wrong. Whoever is not named has none any more.
    pub fn credentials<'a>(&self, ends: impl Iterator<Item = (&'a str, i64)>) {
        self.credentials.clear();
        for (tenant, end) in ends {
            self.credentials.get_or_create(&vec![("tenant", tenant.to_owned())]).set(end);
        }
    }

    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("sweepd_api_calls", "Calls to Defender and the sign-in, by outcome", self.calls.clone());
        registry.register(
            "sweepd_api_call_duration_seconds",
            "How long calls took, from the first byte to the last",
            self.durations.clone(),
        );
        registry.register("sweepd_intake_files", "Files dealt with, by result", self.files.clone());
        registry.register("sweepd_intake_machines", "Lines of files dealt with, by result", self.machines.clone());
        registry.register(
            "sweepd_intake_left_in_place",
            "Things in the drop folder that stay there: no regular files, and files that cannot be taken now",
            self.left_in_place.clone(),
        );
        registry.register(
            "sweepd_intake_over_limit_files",
            "Files that wait because their owner has dropped more than intake.max_files_per_hour",
            self.intake_over_limit.clone(),
        );
        registry.register(
            "sweepd_intake_unreadable_folders",
            "Drop folders that cannot be read",
            self.unreadable_folders.clone(),
        );
        registry.register(
            "sweepd_intake_stopped",
            "Whether no file is taken, since the disk is short",
            self.intake_stopped.clone(),
        );
        registry.register(
            "sweepd_archive_failing",
            "Whether what is older than retention.keep cannot be archived, and so stays",
            self.archive_failing.clone(),
        );
        registry.register(
            "sweepd_credential_expires_seconds",
            "When the certificate ends that the tenant signs in with, in seconds since 1970",
            self.credentials.clone(),
        );
    }
}
