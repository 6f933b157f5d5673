//! Where output goes, and whether it may be coloured.
//!
//! Output goes to one [`Screen`]. A reader that goes away (`airfleet … | head`) is no failure:
//! from then on output is dropped, so that what was begun is finished; long-running commands ask
//! [`Screen::is_closed`] and end.

use std::io::{self, IsTerminal as _, Write};

use crate::error::{Error, Result};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is "dumb".
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Needs attention.
    Warn,
    /// Is wrong.
    Bad,
    /// Matters more than the rest.
    Strong,
    /// Matters less than the rest.
    Dim,
}

/// Colours text, or leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// Leaves text as it is.
    pub const PLAIN: Paint = Paint(false);
    /// Colours text.
    pub const COLORED: Paint = Paint(true);

    /// Whether text is coloured.
    pub fn is_colored(self) -> bool {
        self.0
    }

    /// The text in the colour of its tone.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Strong => "1",
            Tone::Dim => "2",
        };
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Standard output and what is known of standard error.
pub struct Screen {
    out: Box<dyn Write + Send>,
    closed: bool,
    paint: Paint,
    paint_errors: Paint,
    errors_on_terminal: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("closed", &self.closed)
            .field("paint", &self.paint)
            .finish_non_exhaustive()
    }
}

impl Screen {
    /// The process's own output.
    pub fn standard(color: Color) -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let paint = |terminal: bool| match color {
            Color::Always => Paint::COLORED,
            Color::Never => Paint::PLAIN,
            Color::Auto => Paint(terminal && !forbidden),
        };
        let errors_on_terminal = io::stderr().is_terminal();
        Self {
            out: Box::new(io::BufWriter::new(io::stdout())),
            closed: false,
            paint: paint(io::stdout().is_terminal()),
            paint_errors: paint(errors_on_terminal),
            errors_on_terminal,
        }
    }

    /// How output is coloured.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// How text on standard error is coloured.
    pub fn paint_errors(&self) -> Paint {
        self.paint_errors
    }

    /// Whether somebody looks at standard error, so that progress is worth showing.
    pub fn shows_progress(&self) -> bool {
        self.errors_on_terminal
    }

    /// Whether the reader of the output has gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes text as it is.
    pub fn print(&mut self, text: &str) -> Result<()> {
        self.attempt(|out| out.write_all(text.as_bytes()))
    }

    /// Writes text and a line end.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.attempt(|out| {
            out.write_all(text.as_bytes())?;
            out.write_all(b"\n")
        })
    }

    /// Makes everything written so far visible.
    pub fn flush(&mut self) -> Result<()> {
        self.attempt(|out| out.flush())
    }

    /// Writes a line beside the output, on standard error: progress, warnings.
    pub fn note(&mut self, text: &str) {
        // Where standard error is gone there is nobody to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Warns on standard error.
    pub fn warn(&mut self, text: &str) {
        let label = self.paint_errors.tone(Tone::Warn, "warning:");
        self.note(&format!("{label} {text}"));
    }

    fn attempt(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        match write(&mut *self.out) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                // What is buffered must not be written again when the buffer is dropped.
                self.out = Box::new(io::sink());
                Ok(())
            }
            Err(error) => Err(Error::caused("cannot write the output", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let mut screen = Screen {
            out: Box::new(Gone),
            closed: false,
            paint: Paint::PLAIN,
            paint_errors: Paint::PLAIN,
            errors_on_terminal: false,
        };
        assert!(screen.line("first").is_ok());
        assert!(screen.is_closed());
        assert!(screen.line("second").is_ok());
        assert!(screen.flush().is_ok());
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert_eq!(Paint::PLAIN.tone(Tone::Bad, "x"), "x");
        assert_eq!(Paint::COLORED.tone(Tone::Good, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint::COLORED.tone(Tone::Plain, "x"), "x");
        assert_eq!(Paint::COLORED.tone(Tone::Good, ""), "");
    }
}
