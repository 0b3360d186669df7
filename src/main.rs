use std::process::ExitCode;

/// A request makes many small pieces on one thread and gives them back on another, which the system's allocator
/// answers with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    justonce::cli::main()
}
