//! The `pipe` program.

fn main() -> std::process::ExitCode {
    pipe::cli::main()
}
