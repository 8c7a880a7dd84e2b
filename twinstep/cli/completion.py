"""`twinstep --print-completion SHELL`: a script with which a shell completes the command line.

It holds all words: commands, examples, flags and the names that these take. bash and zsh share what
finds them, in the language that both speak.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from twinstep.cli.bench import BenchFlags, BenchOptions
from twinstep.cli.compare import CompareOptions
from twinstep.cli.describe import DescribeOptions
from twinstep.cli.golden import GoldenOptions
from twinstep.cli.listing import ListOptions
from twinstep.cli.match import MatchOptions
from twinstep.cli.parsing import CommonFlags
from twinstep.cli.probe import ProbeOptions
from twinstep.cli.prove import ProveOptions
from twinstep.cli.run import RunOptions
from twinstep.cli.show import ShowOptions
from twinstep.cli.verify import VerifyOptions
from twinstep.errors import InputError, unknown
from twinstep.problems import PROGRAMS, SETS
from twinstep.problems.flags import flags_of
from twinstep.report import write_text

_PRINT, _WRITE = FLAGS = ("--print-completion", "--write-completion")
SHELLS = ("bash", "zsh", "tcsh")

_OPTIONS: dict[str, tuple[Any, ...]] = {
    "list": (ListOptions,),
    "run": (RunOptions, CommonFlags),
    "verify": (VerifyOptions, CommonFlags),
    "describe": (DescribeOptions,),
    "compare": (CompareOptions,),
    "match": (MatchOptions,),
    "probe": (ProbeOptions,),
    "prove": (ProveOptions,),
    "golden": (GoldenOptions,),
    "show": (ShowOptions,),
    "bench": (BenchOptions, BenchFlags),
}
# {a command and how many names stand behind it: those that may be the next}
_NAMES = {
    "run 0": [*PROGRAMS],
    "show 0": [*PROGRAMS],
    "verify *": [*PROGRAMS, *SETS],
    "bench *": [*PROGRAMS],
}
_WITH_ITS_OWN = ("run 1", "verify 1", "bench 1")  # a single example's own flags come too

# $1: the command; the rest: what stands between it and the word that is to be completed
_WORDS = """\
_twinstep_words() {
    [ $# -gt 0 ] || { echo "@FIRST@"; return; }
    local command="$1" last="$1" example="" names=0 flagged="" word
    shift
    for word in "$@"; do
        last="$word"
        case "$word" in
            -*) flagged=yes ;;
            *) [ -n "$flagged" ] || { example="$word"; names=$((names + 1)); } ;;
        esac
    done
    case "$last" in
@VALUES@
    esac
    [ -n "$flagged" ] || case "$command $names" in
@NAMES@
    esac
    case "$command" in
@FLAGS@
    esac
    case "$command $names" in @OWN@) ;; *) return ;; esac
    case "$example" in
@EXAMPLES@
    esac
}
"""

_GLUE = {
    "bash": """\
_twinstep() {
    local word="${COMP_WORDS[COMP_CWORD]}" count="$COMP_CWORD"
    [ "$word" != "=" ] || word=""  # to bash --flag=value is three words
    [ "${COMP_WORDS[COMP_CWORD - 1]}" != "=" ] || count=$((count - 1))
    COMPREPLY=($(compgen -W "$(_twinstep_words "${COMP_WORDS[@]:1:count - 1}")" -- "$word"))
}
complete -o default -F _twinstep twinstep
""",
    "zsh": """\
_twinstep() {
    local -a found
    found=(${=$(_twinstep_words "${(@)words[2,CURRENT-1]}")})
    compadd -a found || _files
}
(( $+functions[compdef] )) || { autoload -U compinit && compinit; }
compdef _twinstep twinstep
""",
}


def command(flag: str, arguments: list[str]) -> int:
    """Runs `twinstep --print-completion SHELL`, or --write-completion SHELL FILE."""
    wanted = ("SHELL", "FILE") if flag == _WRITE else ("SHELL",)
    if len(arguments) != len(wanted):
        raise InputError(f"{flag} takes {' '.join(wanted)}, of {', '.join(SHELLS)}")
    shell, *file = arguments
    if shell not in SHELLS:
        raise InputError(unknown("shell", shell, SHELLS))
    if file:
        write_text(file[0], script(shell))
    else:
        print(script(shell), end="")
    return 0


def script(shell: str) -> str:
    """What bash, zsh or tcsh reads to complete `twinstep`."""
    first = " ".join([*_OPTIONS, "--help", "--version", *FLAGS])
    flags = {
        name: [flag for kind in kinds for flag in flags_of(kind)] + ["--help"]
        for name, kinds in _OPTIONS.items()
    }
    common = flags_of(CommonFlags)
    own = {
        name: [flag for flag in flags_of(spec) if flag not in common]
        for name, spec in PROGRAMS.items()
    }
    values = _values() | dict.fromkeys(FLAGS, SHELLS)
    if shell == "tcsh":
        return _tcsh(first, flags | own, values)
    anything = "|".join(flag for flag, names in values.items() if not names)
    named = {flag: names for flag, names in values.items() if names}
    quoted = {where.replace(" ", r"\ "): names for where, names in _NAMES.items()}
    parts = {
        "FIRST": first,
        "VALUES": f"{_cases(named, '; return')}\n        {anything}) return ;;",
        "NAMES": _cases(quoted),
        "FLAGS": _cases(flags),
        "OWN": "|".join(f'"{where}"' for where in _WITH_ITS_OWN),
        "EXAMPLES": _cases(own),
    }
    text = f"# what completes twinstep in {shell}\n{_WORDS}{_GLUE[shell]}"
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _values() -> dict[str, tuple[str, ...]]:
    """{flag: the names that it takes, () for anything}, of all flags that take a value."""
    kinds = [kind for kinds in _OPTIONS.values() for kind in kinds] + [*PROGRAMS.values()]
    return {
        flag: names for kind in kinds for flag, names in flags_of(kind).items() if names is not None
    }


def _cases(words: Mapping[str, Iterable[str]], then: str = "") -> str:
    """The lines of a shell's `case`: what to say where."""
    return "\n".join(
        f'        {where}) echo "{" ".join(names)}"{then} ;;' for where, names in words.items()
    )


def _tcsh(
    first: str, flags: Mapping[str, Iterable[str]], values: Mapping[str, Iterable[str]]
) -> str:
    """tcsh knows no functions: every flag of all commands, wherever one may stand."""
    every = sorted({flag.removeprefix("--") for those in flags.values() for flag in those})
    rules = [f"p/1/({first})/"]
    for flag, names in values.items():
        rules.append(f"n/{flag}/({' '.join(names)})/" if names else f"n/{flag}/f/")
    rules += [f"c/--/({' '.join(every)})/", f"p/*/({' '.join([*PROGRAMS, *SETS])})/"]
    return f"complete twinstep {' '.join(map(repr, rules))}\n"
