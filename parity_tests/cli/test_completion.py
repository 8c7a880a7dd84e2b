"""What bash and zsh complete, asked of the shells themselves."""

import shutil
from pathlib import Path

import pytest
from helpers.commands import Said, command, ran

from twinstep.cli import COMMANDS, completion
from twinstep.cli.completion import script
from twinstep.problems import EXAMPLES, SETS

EVERY = {*EXAMPLES, *SETS}
# {what stands before the cursor: (words that are offered, words that are not)}; of EVERY those that
# are not to be offered are not
CASES: dict[str, tuple[set[str], set[str]]] = {
    "": ({*COMMANDS, "--help", "--version"}, {"--json"}),
    "run": ({*EXAMPLES}, {*COMMANDS}),
    "run zero_grad": ({"--framework", "--no-compilation-cache", "--seed"}, {"--jobs", "--x"}),
    "run chain_rule --seed 1": ({"--x", "--w2", "--out"}, {"--betas"}),
    "run zero_grad --framework": ({"both", "jax", "torch"}, {"--seed"}),
    "run mnist_rnn --data": ({"digits", "mnist"}, {"--data", "--data-dir"}),
    "run zero_grad --precision": ({"highest", "default"}, {"--precision"}),
    "run zero_grad --no-compilation-cache": ({"--epochs"}, set()),
    "verify": (EVERY | {"--jobs", "--row"}, {"--learning-rate"}),
    "verify zero_grad": (EVERY | {"--learning-rate", "--dtype"}, {"--framework"}),
    "verify zero_grad chain_rule": (EVERY | {"--dtype"}, {"--learning-rate", "--x"}),
    "verify zero_grad --dtype": ({"float32", "float64"}, set()),
    "verify --json": (set(), {"--jobs"}),
    "bench": ({*EXAMPLES, "--cores"}, set()),
    "bench --cores": ({"one", "all", "both"}, set()),
    "show": ({*EXAMPLES}, set()),
    "show zero_grad": ({"--diff"}, {"--epochs"}),
    "describe": ({"--json"}, set()),
    "compare": ({"--steps", "--json"}, set()),
    "list": ({"--json"}, set()),
    "--print-completion": ({"bash", "zsh", "tcsh"}, set()),
}

BASH = """
while IFS= read -r line; do
    read -ra COMP_WORDS <<< "twinstep $line"
    COMP_CWORD=${#COMP_WORDS[@]}
    COMP_WORDS+=("")
    _twinstep
    echo "${COMPREPLY[@]}"
done
complete -p twinstep >&2
"""
ZSH = """
while IFS= read -r line; do
    words=(twinstep ${=line} "")
    CURRENT=${#words}
    _twinstep
done
"""
ZSH_STUBS = """
compdef() { print -u2 "$@" }
_files() { print files }
compadd() { [ "$1" = -a ] && [ ${#found} -gt 0 ] && print -r -- $found }
"""


def heard(shell: str, program: str, folder: Path, asked: str = "") -> Said:
    """What a shell says of a program, which it reads from a file."""
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"there is no {shell} here")
    file = folder / "program"
    file.write_text(program)
    return ran(*shell.split(), file, input=asked)


@pytest.mark.parametrize(
    ("shell", "program", "nothing"),
    [
        ("bash --norc", script("bash") + BASH, set()),
        ("zsh -f", ZSH_STUBS + script("zsh") + ZSH, {"files"}),
    ],
    ids=["bash", "zsh"],
)
def test_a_shell_completes_the_command_line(
    shell: str, program: str, nothing: set[str], tmp_path: Path
) -> None:
    said = heard(shell, program, tmp_path, "".join(f"{words}\n" for words in CASES))
    assert "_twinstep twinstep" in said.err
    lines = said.printed().splitlines()
    for (words, (wanted, unwanted)), line in zip(CASES.items(), lines, strict=True):
        found = set(line.split())
        assert wanted <= found, words
        assert not (unwanted | EVERY - wanted) & found, words
        assert wanted or found == nothing, words


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("run zero_grad --framework = j", "jax"),
        ("run zero_grad --framework =", "both jax torch"),
        ("run without", "without_zero_grad"),
        ("run zero_grad --learn", "--learning-rate"),
        ("verfy", ""),
    ],
)
def test_bash_completes_what_was_begun(words: str, offered: str, tmp_path: Path) -> None:
    last = "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _twinstep; echo ${COMPREPLY[@]}"
    program = f"{script('bash')}COMP_WORDS=(twinstep {words}); {last}"
    assert heard("bash --norc", program, tmp_path).well().strip() == offered


def test_tcsh_gets_a_line_that_it_reads() -> None:
    line = script("tcsh")
    assert line.startswith("complete twinstep 'p/1/(list run verify ")
    assert "'n/--dtype/(float32 float64)/'" in line
    assert line.count("\n") == 1
    if shutil.which("tcsh"):
        assert "p/1/" in ran("tcsh", "-f", input=f"{line}complete").well()


@pytest.mark.parametrize("tyros", ["", "tyro-"])
@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_line_gives_the_script(shell: str, tyros: str, tmp_path: Path) -> None:
    assert command(f"--{tyros}print-completion", shell).well() == script(shell)
    file = tmp_path / "file"
    assert command(f"--{tyros}write-completion", shell, file).well() == ""
    assert file.read_text() == script(shell)
