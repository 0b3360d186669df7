//! JustOnce: submit a task or a file as often as you like; it runs just once.
//!
//! # The house
//!
//! Imports go only downward.
//!
//! ```text
//!  main.rs ── cli            parses arguments: serve · keys · healthcheck · doctor · openapi
//!      │
//!    app                     composition root: picks the adapters, owns start-up checks and the shutdown order
//!      ├───────────────┬──────────────┬──────────────┐
//!   http            worker         scheduler      config
//!   the only place  the only place  cron →         settings from file,
//!   with status     with leases,    submit         environment and
//!   codes           time, retries                  command line
//!      └───────┬───────┴───────┬──────┘
//!         store · blobs · runner                  PORTS: small traits in domain terms
//!              └───────┬───────┘
//!                  domain                         pure values and rules: no runtime, no HTTP, no clock
//!
//!  ADAPTERS, named only by app:
//!    store/embedded (SQLite) · store/redis    blobs/local (files)
//!    runners: echo · clean_up · report · sandboxed → sandbox → parsers (in a child process) · command
//!             http · scrape · notify · deliver → egress (judges where requests that go out may lead)
//! ```
//!
//! Types whose runner is external are run by nobody here: workers outside lease their tasks through `http`.
//!
//! There is no service layer. The verbs of the [`store::Store`] port are the use cases, and each is one
//! atomic step. [`store::Store::admit`] decides new, duplicate or key reused, and enqueues, in that one
//! step; it returns an enum that says what comes next, and `http` matches it exhaustively.
//!
//! # Invariants
//!
//! Every adapter of the store port is held to them by one conformance suite.
//!
//! 1. For a (user, key) within its retention, and for a (user, fingerprint) while its task answers, there
//!    is one task id, however many retries, races or lost replies.
//! 2. Reserve and enqueue happen together or not at all. No lock can outlive its owner, and nothing that
//!    guards unfinished work ever expires by time.
//! 3. An acknowledged submission is durable at the level that the reply names, and ends in exactly one
//!    terminal state.
//! 4. A lease carries a fencing token that only grows; extend, complete and fail with an older token change
//!    nothing. Execution is at least once; a recorded completion is at most once. The attempt is counted when
//!    it is leased, so that a task that kills its worker reaches the dead letters too; a lease handed back by
//!    drain is not counted.
//! 5. Every step may be repeated after an unknown outcome: it carries a nonce from its caller (the new task's
//!    id, or the fencing token), and the repeat returns what the first one did.
//! 6. Time decides only liveness. Deadlines are data, judged by the store's own clock inside the step.
//! 7. Terminal states and result bytes never change, until they expire, are forgotten or redriven by hand.
//! 8. Everything is bounded by a named limit with a unit ([`limits::Limits`]).
//! 9. A store that has lost what it acknowledged says so before it acknowledges anything else.
//!
//! # Why…?
//!
//! - …a key and a fingerprint? Retried requests and repeated work are different questions; systems that
//!   answer both with one lock either run things twice or refuse things that were never done.
//! - …no lock with a time to live? One that is shorter than the work runs it twice; a longer one blocks it
//!   after a crash. Leases with fencing on the task, and no expiry on unfinished claims, have neither fault.
//! - …SHA-256 over whole files? A sample misses changes between its points. With SHA instructions the whole
//!   file costs less than receiving it.
//! - …leases without an fsync on the embedded store? A lease that a power loss undoes was held by a worker
//!   that the same power loss ended; a killed process loses nothing. Workers outside live on, so that their leases
//!   are fsynced, and kept over restarts. Admissions and ends are always fsynced before they are answered.
//! - …marks, one for each replica and partition, that only promises raise? A mark that every step raised would
//!   call the loss of a heartbeat lost state at every failover; one that replicas shared would be raised past
//!   the gap by those who have not seen it.
//! - …the newest changes in each task's record, and no log of events? A log would be one more write in every step,
//!   for followers that most tasks never have. With the record it is read, kept and lost as one with the task.
//! - …a version in each partition that holds schedules? It is read together with what replicas look at anyway. Nobody
//!   asks for schedules that are due where none can be, and whoever has missed the news knows within a second.
//! - …a replica that is not up before its first mark is where acknowledgements must be? A primary that is killed at once takes
//!   an epoch and marks that nobody has copied along, and whoever knew them would miss what was never promised.
//! - …a promise that only the server confirms that made it? While another takes over, a replica talks to both, and its mark may
//!   have the same number on each.
//! - …an allocator that is not the system's? A request makes many small pieces of memory on one thread and gives them back on
//!   another. That cost a quarter of the service's time, a part of it waiting for locks.
//! - …a memory of ended tasks on every replica? Most duplicates ask for what has long ended. An answer from
//!   memory holds for a quarter of a second after Redis has confirmed it, and forgetting waits that long.
//! - …an end that waits to be shown, where acknowledgements wait for copies? A primary shows what it has not passed
//!   on; if it dies then, the task runs again elsewhere and may end otherwise.
//! - …a line for each user, and no queue for each type? A queue lets one user's backlog keep all others waiting, and whoever
//!   looks for the others in it scans that backlog. Users take turns by when each had the last one, so that nobody counts.
//! - …tasks put aside when their concurrency key turns out to be taken, and not when they are submitted? Most find it free,
//!   and a submission need not look. Each is put aside once for each time that it is called.
//! - …a rate that remembers each start? A bucket that fills again lets twice as many start within a span as it names.
//! - …names judged by the resolver of the connection, and not before? Between two look-ups a name may come to
//!   lead elsewhere. What was judged is what is connected to.
//! - …one long lease for what was handed over to a service? It takes no slot, needs no heartbeat, and outlives
//!   the process that handed it over.
//! - …a callback's delivery made by the step that ends its task? Between an end and a message that is made after
//!   it, a crash loses or doubles one. As a task, a delivery is retried, listed and redriven by what is there.
//! - …a delivery that reads its task when it is sent? A copy of every result for each callback would be kept with the
//!   queue. What may change after an end (a redrive changes it) is in the delivery, and a success does not change.
//! - …what is in conflict told by a match beside the fingerprint, not in its place? It is not the same work: each content and
//!   each key keep the task that is theirs, and what they are answered with does not depend on what came later.
//! - …a task that waits behind another scheduled, and in no queue of its own? The step that ends the other one gives it its
//!   turn, and whoever leases need not know of it.
//! - …a key that has withdrawn for good? Its submission may still be on its way a second time. Wanting the task again then would
//!   keep work going that nobody waits for.
//! - …unfinished tasks of a user counted from the lists that hold them? A counter beside them would be one more thing that
//!   every step keeps right for users whom nothing limits. The lists are there, and asked only where there is a quota.
//! - …a file and its submission in one step? A refused submission must leave nothing behind, and a file must
//!   never be cleaned up between its upload and its task.

pub mod app;
pub mod blobs;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod cryptography;
pub mod domain;
pub mod egress;
pub mod failpoints;
pub mod http;
pub mod limits;
pub mod links;
pub mod parsers;
pub mod results;
pub mod runner;
pub mod runners;
pub mod sandbox;
pub mod scheduler;
pub mod seeded_faults;
pub mod store;
pub mod task_view;
pub mod worker;
pub mod worker_gauge;
