-- The queue, the budget and the record. Times are milliseconds: *_at since the Unix epoch (wall
-- clock), *_boot since the machine booted. All words in CHECKs are those of the contract.

-- One row for each start of the daemon; the highest epoch is the living one.
CREATE TABLE incarnations (
    epoch        INTEGER PRIMARY KEY,
    started_at   INTEGER NOT NULL,
    started_boot INTEGER NOT NULL,
    boot_id      TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    stopped_at   INTEGER
) STRICT;

-- What an app registration may spend. Defender counts by registration: a tenant that is renamed keeps
-- its ledger, and two sections with one registration share one.
CREATE TABLE budgets (
    id           INTEGER PRIMARY KEY,
    registration TEXT    NOT NULL UNIQUE
) STRICT;

-- One boot of this machine: between `asked` and `answered` on its clock the registration's sign-in server
-- wrote `date_at`, which is cut to the second. So the age of a slot is known over a reboot, whatever this
-- machine's wall clock says; and a boot clock that jumped is found out. `runs` is 0 for a server whose clock
-- was seen not to run as this machine's does.
CREATE TABLE boots (
    boot_id   TEXT    NOT NULL,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    asked     INTEGER NOT NULL,
    answered  INTEGER NOT NULL,
    date_at   INTEGER NOT NULL,
    runs      INTEGER NOT NULL DEFAULT 1 CHECK (runs IN (0, 1)),
    PRIMARY KEY (boot_id, budget_id)
) STRICT, WITHOUT ROWID;

-- What others with the same registration are believed to spend of each window, in calls; and when the last
-- 429 showed it.
CREATE TABLE foreign_calls (
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    kind      TEXT    NOT NULL,
    minute    INTEGER NOT NULL CHECK (minute >= 0),
    hour      INTEGER NOT NULL CHECK (hour >= 0),
    last_429_at INTEGER NOT NULL,
    PRIMARY KEY (budget_id, kind)
) STRICT, WITHOUT ROWID;

-- The silence that a 429 asks for: no call of that kind before its end, whoever with the registration would
-- make it. So many in a row, without an answer between them. It goes with the first answer after it.
CREATE TABLE silences (
    budget_id  INTEGER NOT NULL REFERENCES budgets (id),
    kind       TEXT    NOT NULL,
    until_boot INTEGER NOT NULL,
    boot_id    TEXT    NOT NULL,
    length_ms  INTEGER NOT NULL CHECK (length_ms >= 0),
    strikes    INTEGER NOT NULL CHECK (strikes > 0),
    PRIMARY KEY (budget_id, kind)
) STRICT, WITHOUT ROWID;

-- What operators decide about a tenant, and what its lane has to remember over a restart.
CREATE TABLE tenants (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    budget_id     INTEGER REFERENCES budgets (id),
    paused_at     INTEGER,
    paused_reason TEXT,
    -- When it ends by itself; without, at `resume`.
    paused_until  INTEGER,
    paused_by     TEXT,
    waiting_for   TEXT    NOT NULL DEFAULT 'nothing',
    waiting_until INTEGER,
    hold          TEXT,
    hold_until_boot INTEGER,
    -- The first of the sign-ins that have failed one after the other; none when the last one went well.
    sign_in_fails_since INTEGER,
    feed_cursor   INTEGER,
    CHECK ((hold IS NULL) = (hold_until_boot IS NULL))
) STRICT;

-- Parts of the record that were archived, each with the sweeps that were over by its cutoff: written, checked and
-- noted here before anything of it is removed.
CREATE TABLE archives (
    last          INTEGER PRIMARY KEY,
    first         INTEGER NOT NULL,
    -- The hash of the event before the first, and that of the last.
    before        TEXT    NOT NULL,
    hash          BLOB    NOT NULL CHECK (length(hash) = 32),
    cutoff        INTEGER NOT NULL,
    events_file   TEXT    NOT NULL,
    events_sha256 TEXT    NOT NULL,
    rows_file     TEXT    NOT NULL,
    rows_sha256   TEXT    NOT NULL,
    -- When nothing of it was left here.
    removed_at    INTEGER,
    CHECK (first <= last)
) STRICT;

CREATE TABLE sweeps (
    n            INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    tenant_id    INTEGER NOT NULL REFERENCES tenants (id),
    name         TEXT    NOT NULL,
    source       TEXT    NOT NULL CHECK (source IN ('file', 'submit', 'retry', 'schedule')),
    state        TEXT    NOT NULL CHECK (state IN ('taking', 'held', 'open', 'done')),
    file         TEXT    NOT NULL,
    sha256       TEXT    NOT NULL,
    file_uid     INTEGER,
    received_at  INTEGER NOT NULL,
    finished_at  INTEGER,
    lines        INTEGER NOT NULL DEFAULT 0,
    queued       INTEGER NOT NULL DEFAULT 0,
    -- So many of the new jobs are Full scans.
    full         INTEGER NOT NULL DEFAULT 0 CHECK (full BETWEEN 0 AND queued),
    joined       INTEGER NOT NULL DEFAULT 0,
    duplicates   INTEGER NOT NULL DEFAULT 0,
    not_eligible INTEGER NOT NULL DEFAULT 0,
    refused      INTEGER NOT NULL DEFAULT 0,
    -- Jobs of this sweep that are not final yet, joined ones included.
    open         INTEGER NOT NULL DEFAULT 0 CHECK (open >= 0),
    -- The lowest priority and the latest time that it asks for.
    lowest_priority   INTEGER NOT NULL DEFAULT 3 CHECK (lowest_priority BETWEEN 0 AND 3),
    latest_not_before INTEGER,
    receipt      TEXT,
    -- The path below the spool folder that the file is put away to, chosen before it is moved.
    filed_as     TEXT,
    filed        INTEGER NOT NULL DEFAULT 0 CHECK (filed IN (0, 1)),
    reported     INTEGER NOT NULL DEFAULT 0 CHECK (reported IN (0, 1)),
    -- Whether its jobs have been made ready; a long file's are hidden until all of it is on disk.
    released     INTEGER NOT NULL DEFAULT 0 CHECK (released IN (0, 1)),
    retry_of     INTEGER REFERENCES sweeps (n),
    -- The archive that it is in: it is being removed.
    archived     INTEGER REFERENCES archives (last),
    CHECK (archived IS NULL OR state = 'done'),
    CHECK ((state = 'done') = (finished_at IS NOT NULL))
) STRICT;
CREATE INDEX sweeps_unfinished ON sweeps (tenant_id, sha256) WHERE state <> 'done';
CREATE INDEX sweeps_held ON sweeps (tenant_id) WHERE state = 'held';
CREATE INDEX sweeps_archived ON sweeps (archived) WHERE archived IS NOT NULL;
CREATE INDEX sweeps_retried ON sweeps (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX sweeps_to_report ON sweeps (n) WHERE state = 'done' AND reported = 0;
CREATE INDEX sweeps_to_file ON sweeps (tenant_id, sha256) WHERE filed = 0;
CREATE INDEX sweeps_to_release ON sweeps (n) WHERE released = 0 AND state = 'open';

CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    tenant_id    INTEGER NOT NULL REFERENCES tenants (id),
    sweep_n      INTEGER NOT NULL REFERENCES sweeps (n),
    machine      BLOB    NOT NULL CHECK (length(machine) = 20),
    name         TEXT,
    scan_type    TEXT    NOT NULL CHECK (scan_type IN ('Quick', 'Full')),
    state        TEXT    NOT NULL CHECK (state IN ('queued', 'sending', 'accepted', 'succeeded', 'failed',
                                                   'timed_out', 'cancelled', 'skipped', 'rejected', 'needs_review')),
    reason       TEXT,
    -- More than the reason says, where it does not say all.
    detail       TEXT,
    priority     INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 3),
    on_pending   TEXT    NOT NULL CHECK (on_pending IN ('skip', 'wait')),
    comment      TEXT    NOT NULL,
    not_before   INTEGER,
    -- Not ready before this time: its own, or until what blocks it is looked at again; the largest
    -- integer while its sweep is held or not complete.
    parked_until INTEGER,
    -- The pending action that it waits for, or was skipped for.
    blocked_by   TEXT,
    -- Attempts that count against max_attempts.
    attempts     INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    action_id    TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    CHECK ((finished_at IS NULL) = (state IN ('queued', 'sending', 'accepted'))),
    CHECK (state <> 'accepted' OR action_id IS NOT NULL),
    CHECK (state = 'queued' OR parked_until IS NULL)
) STRICT;
CREATE INDEX jobs_ready ON jobs (tenant_id, priority DESC, id) WHERE state = 'queued' AND parked_until IS NULL;
CREATE INDEX jobs_parked ON jobs (tenant_id, parked_until) WHERE state = 'queued' AND parked_until IS NOT NULL;
CREATE INDEX jobs_blocked ON jobs (tenant_id, blocked_by) WHERE state = 'queued' AND blocked_by IS NOT NULL;
CREATE INDEX jobs_moving ON jobs (tenant_id, state) WHERE state IN ('sending', 'accepted');
CREATE INDEX jobs_of_sweep ON jobs (sweep_n);
CREATE INDEX jobs_finished ON jobs (tenant_id, machine) WHERE finished_at IS NOT NULL;
-- What ended lately, and how: for the dashboard and the metrics.
CREATE INDEX jobs_ended ON jobs (tenant_id, state, finished_at, reason) WHERE finished_at IS NOT NULL;

-- What nobody may have decided about yet, in the order in which it is looked up whether somebody has.
CREATE INDEX jobs_undecided ON jobs (tenant_id, machine, scan_type) WHERE state = 'needs_review';

-- At most one open job per tenant, machine and scan type: its key says so. job_id is one of jobs, written before
-- or in the same transaction; declared, SQLite would look each of a million up, in random order.
CREATE TABLE open_jobs (
    tenant_id INTEGER NOT NULL,
    machine   BLOB    NOT NULL,
    scan_type TEXT    NOT NULL,
    job_id    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, machine, scan_type)
) STRICT, WITHOUT ROWID;

-- Sweeps that a job counts in beside its own, and what they wish: while it is unsent, the higher
-- priority and the earlier time win.
CREATE TABLE joins (
    sweep_n    INTEGER NOT NULL REFERENCES sweeps (n),
    job_id     INTEGER NOT NULL REFERENCES jobs (id),
    priority   INTEGER NOT NULL,
    not_before INTEGER,
    PRIMARY KEY (sweep_n, job_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX joins_of_job ON joins (job_id);

-- What the files of the last hour brought that nobody was asked about: many small files are one large one.
CREATE TABLE unasked (
    sweep_n   INTEGER PRIMARY KEY REFERENCES sweeps (n),
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    quick     INTEGER NOT NULL,
    full      INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    boot      INTEGER NOT NULL,
    boot_id   TEXT    NOT NULL
) STRICT;
CREATE INDEX unasked_by_age ON unasked (boot_id, boot, at);

-- The sums of the same: with a hundred thousand files in the hour, nobody adds them up for each.
CREATE TABLE unasked_sums (
    tenant_id INTEGER PRIMARY KEY REFERENCES tenants (id),
    quick     INTEGER NOT NULL CHECK (quick >= 0),
    full      INTEGER NOT NULL CHECK (full >= 0)
) STRICT;
CREATE TRIGGER unasked_are_summed AFTER INSERT ON unasked
BEGIN
    INSERT INTO unasked_sums (tenant_id, quick, full) VALUES (NEW.tenant_id, NEW.quick, NEW.full)
    ON CONFLICT DO UPDATE SET quick = quick + excluded.quick, full = full + excluded.full;
END;
CREATE TRIGGER unasked_are_forgotten AFTER DELETE ON unasked
BEGIN
    UPDATE unasked_sums SET quick = quick - OLD.quick, full = full - OLD.full WHERE tenant_id = OLD.tenant_id;
END;

-- Machines of a file that got no job, for a named reason.
CREATE TABLE left_out (
    sweep_n INTEGER NOT NULL REFERENCES sweeps (n),
    line    INTEGER NOT NULL,
    machine BLOB    NOT NULL,
    name    TEXT,
    reason  TEXT    NOT NULL,
    PRIMARY KEY (sweep_n, line)
) STRICT, WITHOUT ROWID;

-- How many jobs are in which state: kept with every move, so that `status` costs nothing.
CREATE TABLE job_counts (
    tenant_id INTEGER NOT NULL,
    state     TEXT    NOT NULL,
    n         INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (tenant_id, state)
) STRICT, WITHOUT ROWID;

-- How many of a sweep's own jobs are queued, by priority; at -1, of those that it joined. Kept with
-- every move, so that the end of each sweep can be told however long the queue is.
CREATE TABLE unsent (
    sweep_n  INTEGER NOT NULL REFERENCES sweeps (n),
    priority INTEGER NOT NULL CHECK (priority BETWEEN -1 AND 3),
    n        INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (sweep_n, priority)
) STRICT, WITHOUT ROWID;

-- The ledger. A slot is held while its call may still arrive and one window longer.
-- settles_boot is the largest integer until the call has settled.
CREATE TABLE slots (
    id           INTEGER PRIMARY KEY,
    budget_id    INTEGER NOT NULL REFERENCES budgets (id),
    kind         TEXT    NOT NULL,
    epoch        INTEGER NOT NULL REFERENCES incarnations (epoch),
    boot_id      TEXT    NOT NULL,
    taken_boot   INTEGER NOT NULL,
    taken_at     INTEGER NOT NULL,
    settles_boot INTEGER NOT NULL DEFAULT 9223372036854775807,
    -- When it settled by the sign-in server's clock, at the latest; known once the next sign-in or start is there.
    settled_server INTEGER
) STRICT;
CREATE INDEX slots_newest ON slots (budget_id, kind, settles_boot DESC);

CREATE TABLE attempts (
    id          TEXT    PRIMARY KEY,
    job_id      INTEGER NOT NULL REFERENCES jobs (id),
    tenant_id   INTEGER NOT NULL REFERENCES tenants (id),
    machine     BLOB    NOT NULL,
    slot_id     INTEGER NOT NULL,
    epoch       INTEGER NOT NULL REFERENCES incarnations (epoch),
    probe       INTEGER NOT NULL CHECK (probe IN (0, 1)),
    taken_at    INTEGER NOT NULL,
    settled_at  INTEGER,
    outcome     TEXT CHECK (outcome IN ('created', 'busy', 'refused', 'missing', 'unauthorized', 'forbidden',
                                        'throttled', 'malformed', 'unknown', 'not_sent')),
    http_status INTEGER,
    -- The answer as it came, capped and redacted; or why there was none.
    answer      TEXT,
    -- What has to be looked up before the job goes on.
    question    TEXT CHECK (question IN ('effect', 'blocker', 'machine')),
    asked_boot  INTEGER,
    looks       INTEGER NOT NULL DEFAULT 0,
    next_look_boot INTEGER,
    resolved    TEXT CHECK (resolved IN ('found', 'absent', 'undecidable')),
    resolved_at INTEGER,
    CHECK ((settled_at IS NULL) = (outcome IS NULL)),
    CHECK (question IS NULL OR (asked_boot IS NOT NULL AND next_look_boot IS NOT NULL)),
    CHECK ((resolved IS NULL) = (resolved_at IS NULL))
) STRICT;
-- Jobs that an operator withdrew while their call was on the wire, or being looked up: they end when it turns out
-- that it had no effect. With a wish, what it did is to be cancelled.
CREATE TABLE withdrawn (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
    wish   TEXT
) STRICT;

CREATE INDEX attempts_of_job ON attempts (job_id);
CREATE INDEX attempts_on_the_wire ON attempts (tenant_id, epoch) WHERE settled_at IS NULL;
CREATE INDEX attempts_asked ON attempts (tenant_id, next_look_boot) WHERE question IS NOT NULL AND resolved IS NULL;

-- Actions of Defender, ours and others', as received last.
CREATE TABLE actions (
    tenant_id   INTEGER NOT NULL REFERENCES tenants (id),
    id          TEXT    NOT NULL,
    machine     BLOB,
    type        TEXT    NOT NULL,
    scope       TEXT,
    status      TEXT    NOT NULL,
    origin      TEXT    NOT NULL CHECK (origin IN ('ours', 'foreign')),
    attempt_id  TEXT,
    job_id      INTEGER REFERENCES jobs (id),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    first_seen_at INTEGER NOT NULL,
    raw         TEXT    NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((origin = 'ours') = (attempt_id IS NOT NULL))
) STRICT;
CREATE INDEX actions_of_machine ON actions (tenant_id, machine);
CREATE INDEX actions_of_job ON actions (job_id) WHERE job_id IS NOT NULL;
-- Those that end by their age, not with a job.
CREATE INDEX actions_of_nobody ON actions (first_seen_at) WHERE job_id IS NULL;
CREATE INDEX actions_ours ON actions (tenant_id) WHERE origin = 'ours';
CREATE INDEX actions_open ON actions (tenant_id, created_at) WHERE status IN ('Pending', 'InProgress');
-- What may have to be given up, oldest first.
CREATE INDEX actions_not_ended ON actions (tenant_id, first_seen_at)
    WHERE status NOT IN ('Succeeded', 'Failed', 'TimeOut', 'Cancelled');

-- Machines that Defender's list shows as not worth asking, as of the last list that was read.
CREATE TABLE ineligible (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    machine   BLOB    NOT NULL CHECK (length(machine) = 20),
    why       TEXT    NOT NULL CHECK (why IN ('inactive', 'not_onboarded', 'merged')),
    listed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, machine)
) STRICT, WITHOUT ROWID;

-- Actions with a mark of sweepd that this database did not write: it was restored from an older copy,
-- or runs twice. The tenant's lane is held until an operator has accepted them.
CREATE TABLE unknown_marks (
    tenant_id   INTEGER NOT NULL REFERENCES tenants (id),
    action_id   TEXT    NOT NULL,
    attempt_id  TEXT    NOT NULL,
    seen_at     INTEGER NOT NULL,
    -- Whether its call stands in the ledger.
    charged     INTEGER NOT NULL DEFAULT 0 CHECK (charged IN (0, 1)),
    accepted_at INTEGER,
    PRIMARY KEY (tenant_id, action_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX unknown_marks_open ON unknown_marks (tenant_id) WHERE accepted_at IS NULL;
CREATE INDEX unknown_marks_uncharged ON unknown_marks (tenant_id) WHERE charged = 0;

-- Actions that operators want Defender to cancel. A call is counted before it leaves; while `in_doubt` its
-- answer is not here, and the action is read before it is made again.
CREATE TABLE cancellations (
    id         INTEGER PRIMARY KEY,
    tenant_id  INTEGER NOT NULL,
    action_id  TEXT    NOT NULL,
    comment    TEXT    NOT NULL,
    asked_at   INTEGER NOT NULL,
    calls      INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
    in_doubt   INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt IN (0, 1)),
    answer     TEXT,
    ended_at   INTEGER,
    outcome    TEXT CHECK (outcome IN ('cancelled', 'ended', 'unknown', 'forbidden', 'refused', 'gave_up')),
    FOREIGN KEY (tenant_id, action_id) REFERENCES actions (tenant_id, id),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE UNIQUE INDEX cancellations_open ON cancellations (tenant_id, action_id) WHERE ended_at IS NULL;
CREATE INDEX cancellations_of_action ON cancellations (tenant_id, action_id);

-- The record: never changed, never deleted in place, each row chained to the one before by
-- hash = SHA-256 of the lines "previous hash, seq, at, kind, tenant, job, machine, body".
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    tenant_id INTEGER,
    job_id    INTEGER,
    machine   BLOB,
    body      TEXT    NOT NULL CHECK (json_valid(body)),
    hash      BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX events_of_machine ON events (tenant_id, machine) WHERE machine IS NOT NULL;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM archives WHERE last >= OLD.seq)
BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END;
