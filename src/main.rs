use std::process::ExitCode;

fn main() -> ExitCode {
    justonce::cli::main()
}
