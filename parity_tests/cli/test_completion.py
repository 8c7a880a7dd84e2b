"""What bash and zsh complete, asked of the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.synthetic_traces import refused

from twinstep.cli import COMMANDS, completion, main
from twinstep.cli.completion import script
from twinstep.problems import EXAMPLES, SETS

EVERY = {*EXAMPLES, *SETS}
# {what stands before the cursor: (words that are offered, words that are not)}
CASES: dict[str, tuple[set[str], set[str]]] = {
    "": ({*COMMANDS, "--help", "--version"}, EVERY | {"--json"}),
    "run": ({*EXAMPLES}, {*SETS, *COMMANDS}),
    "run zero_grad": (
        {"--framework", "--no-compilation-cache", "--seed"},
        EVERY | {"--jobs", "--x"},
    ),
    "run chain_rule --seed 1": ({"--x", "--w2", "--out"}, EVERY | {"--betas"}),
    "run zero_grad --framework": ({"both", "jax", "torch"}, EVERY | {"--seed"}),
    "run mnist_rnn --data": ({"digits", "mnist"}, {"--data", "--data-dir"}),
    "run zero_grad --precision": ({"highest", "default"}, {"--precision"}),
    "run zero_grad --no-compilation-cache": ({"--epochs"}, EVERY),
    "verify": (EVERY | {"--jobs", "--row"}, {"--learning-rate"}),
    "verify zero_grad": (EVERY | {"--learning-rate", "--dtype"}, {"--framework"}),
    "verify zero_grad chain_rule": (EVERY | {"--dtype"}, {"--learning-rate", "--x"}),
    "verify zero_grad --dtype": ({"float32", "float64"}, EVERY),
    "verify --json": (set(), EVERY | {"--jobs"}),
    "bench": ({*EXAMPLES, "--cores"}, {*SETS}),
    "bench --cores": ({"one", "all", "both"}, EVERY),
    "show": ({*EXAMPLES}, {*SETS}),
    "show zero_grad": ({"--diff"}, EVERY | {"--epochs"}),
    "compare": ({"--steps", "--json"}, EVERY),
    "list": ({"--json"}, EVERY),
    "--print-completion": ({"bash", "zsh", "tcsh"}, EVERY),
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


def asked(shell: list[str], program: str, folder: Path) -> list[set[str]]:
    """What a shell offers for each of CASES; the script is read from a file."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]} here")
    file = folder / "program"
    file.write_text(program)
    lines = "".join(f"{words}\n" for words in CASES)
    done = subprocess.run(
        [*shell, str(file)], input=lines, capture_output=True, text=True, check=True
    )
    assert "_twinstep twinstep" in done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


def check(offered: list[set[str]], nothing: set[str]) -> None:
    """Holds what is offered against CASES."""
    for (words, (wanted, unwanted)), found in zip(CASES.items(), offered, strict=True):
        assert wanted <= found, words
        assert not unwanted & found, words
        assert wanted or found == nothing, words


def test_bash_completes_the_command_line(tmp_path: Path) -> None:
    check(asked(["bash", "--norc"], script("bash") + BASH, tmp_path), nothing=set())


def test_zsh_completes_the_command_line(tmp_path: Path) -> None:
    check(asked(["zsh", "-f"], ZSH_STUBS + script("zsh") + ZSH, tmp_path), nothing={"files"})


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
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    last = "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _twinstep; echo ${COMPREPLY[@]}"
    file = tmp_path / "program"
    file.write_text(f"{script('bash')}COMP_WORDS=(twinstep {words}); {last}")
    done = subprocess.run(["bash", "--norc", str(file)], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (offered, "")


def test_tcsh_gets_a_line_that_it_reads() -> None:
    line = script("tcsh")
    assert line.startswith("complete twinstep 'p/1/(list run verify ")
    assert "'n/--dtype/(float32 float64)/'" in line
    assert line.count("\n") == 1
    if shutil.which("tcsh"):
        done = subprocess.run(
            ["tcsh", "-f"], input=f"{line}complete", capture_output=True, text=True, check=True
        )
        assert (done.stderr, "p/1/" in done.stdout) == ("", True)


@pytest.mark.parametrize("tyros", ["", "tyro-"])
@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_command_line_gives_the_script(
    shell: str, tyros: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--{tyros}print-completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)
    file = tmp_path / "file"
    assert main([f"--{tyros}write-completion", shell, str(file)]) == 0
    assert file.read_text() == script(shell)
    assert capsys.readouterr().out == ""


def test_what_is_no_shell_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    refused(lambda: completion.command("--print-completion", ["bsh"]), "did you mean bash")
    refused(lambda: completion.command("--print-completion", []), "takes SHELL, of bash, zsh")
    refused(lambda: completion.command("--write-completion", ["bash"]), "takes SHELL FILE")
    assert main(["--prnt-completion", "bash"]) == 2
    assert "did you mean --print-completion" in capsys.readouterr().err
