//! The `pipe` program.

/// A pipeline of ten thousand stages is a million small values: with the system's allocator, checking
/// it takes 0.21 CPU seconds, with this one 0.13.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pipe::cli::main()
}
