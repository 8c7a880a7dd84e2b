"""The command line: twinstep list | run | verify | compare | show | bench; a file a command.

Each command imports what it needs when it is called; `--help` imports neither framework.
"""

import io
import sys
from collections.abc import Callable, Sequence

from twinstep.cli import program
from twinstep.errors import InputError, unknown

USAGE = """\
usage: twinstep COMMAND ...

Does your JAX code train exactly like your PyTorch code, and if not, where does it part?

  list                      the examples: document, model, loss, optimizer, steps
  run EXAMPLE               train it in both frameworks, print the document's own log lines
  verify [EXAMPLE ...]      train in both, judge every step, a verdict a row (default: all)
  describe TRACE [TRACE]    what was recorded; of two, what cannot be the same
  compare TRACE_A TRACE_B   judge two saved traces of the same names
  match TRACE_A TRACE_B     which of PyTorch's entries each leaf of a port is: a map
  probe TRACE               weights of which a port's own converter makes that map
  convert IN OUT            a state_dict's file as the other side of a map has it, and back
  prove TRACE_A TRACE_B     judge a port of one's own, from PyTorch's trace and its own
  golden TRACE              of PyTorch's trace, a small folder that a port's tests hold it against
  show EXAMPLE [--diff]     the two implementations, mirrored lines level; or what differs
  bench [EXAMPLE ...]       what each way to train costs, as ratios

twinstep COMMAND --help gives the flags of a command; with an EXAMPLE, its hyper-parameters too.
source <(twinstep --print-completion bash) completes it all in a shell; also zsh, tcsh.

exit code:
  0    the same; or the command did what it was asked for
  1    not the same, or nothing was proved; a loss that is no number
  2    bad usage, bad input, or an output that cannot be written: one line says which
  70   a crash of our own, or of a process of ours; the line names a file to report it with
  130  Ctrl-C
  141  a closed pipe, as by `| head`
  143  ended by SIGTERM"""

COMMANDS = (
    "list", "run", "verify", "describe", "compare", "match", "probe", "convert", "prove",
    "golden", "show", "bench",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code. Without arguments, those of the process, which it becomes:
    its signals are handled, and what it cannot print is no traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without Chinese still gets the rest
        sys.stdout.reconfigure(errors="replace")
    return program.run(_run) if arguments is None else program.guarded(_run, arguments)


def _run(arguments: Sequence[str]) -> int:
    command, *rest = [*arguments] or ["--help"]
    code = 0
    if command in ("-h", "--help"):
        print(USAGE)
    elif command == "--version":
        from importlib.metadata import version

        print(f"twinstep {version('twinstep')}")
    elif command.endswith("-completion") and command.startswith("--"):
        from twinstep.cli import completion

        flag = command.replace("--tyro-", "--")  # as some programs spell it
        if flag not in completion.FLAGS:
            raise InputError(unknown("flag", command, completion.FLAGS))
        code = completion.command(flag, rest)
    else:
        code = _command(command)(rest)
    sys.stdout.flush()
    return code


def _command(name: str) -> Callable[[list[str]], int]:
    """What runs a command; imported here, so that the others cost nothing."""
    match name:
        case "list":
            from twinstep.cli.listing import command
        case "run":
            from twinstep.cli.run import command
        case "verify":
            from twinstep.cli.verify import command
        case "describe":
            from twinstep.cli.describe import command
        case "compare":
            from twinstep.cli.compare import command
        case "match":
            from twinstep.cli.match import command
        case "probe":
            from twinstep.cli.probe import command
        case "convert":
            from twinstep.cli.convert import command
        case "prove":
            from twinstep.cli.prove import command
        case "golden":
            from twinstep.cli.golden import command
        case "show":
            from twinstep.cli.show import command
        case "bench":
            from twinstep.cli.bench import command
        case _:
            raise InputError(unknown("command", name, COMMANDS))
    return command


if __name__ == "__main__":
    sys.exit(main())
