//! A process of this benchmark that executes commands: one line of text each, and one for the
//! answer.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::super::process;

/// A process that exits when the value is dropped.
pub(super) struct Worker {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts this program with arguments, in the network namespace of this thread.
    pub(super) fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self {
            commands: child.stdin.take(),
            child,
            answers,
        }
    }

    /// Returns the next line of the process.
    pub(super) fn line(&mut self) -> String {
        let line = self.answers.next().expect("the process goes on");
        line.expect("text")
    }

    /// Sends a command and waits for its answer.
    pub(super) fn ask(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().expect("the process goes on");
        writeln!(commands, "{command}").expect("the process reads");
        self.line()
    }

    pub(super) fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its commands ends the process.
        self.commands.take();
        self.child.wait().ok();
    }
}

/// Answers each command on standard input until its end.
pub(super) fn answer(mut answer: impl FnMut(&str) -> String) {
    for command in std::io::stdin().lines() {
        let Ok(command) = command else { return };
        println!("{}", answer(&command));
    }
}
