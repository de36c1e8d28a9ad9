"""What `take` takes, what it refuses, and that it is one instant of the folder."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from changeover.errors import InvalidRequest, OperatorError
from changeover.versions.snapshot import Snapshot, SnapshotLimits, SnapshotUnstable, take, with_files


def write(folder: Path, path: str, text: str | bytes = "x") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def codes(snapshot: Snapshot) -> dict[str, str]:
    return {problem.path: problem.code for problem in snapshot.problems}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write(folder, "agents.yaml", "agents: {}\n")
    write(folder, "prompts/support.md", "hello")
    write(folder, "graphs/deep/er/nodes.py", "x = 1\n")
    return folder


PROJECT = ["agents.yaml", "graphs/deep/er/nodes.py", "prompts/support.md"]


# --- what a version holds


def test_a_version_holds_the_files_of_the_format_and_nothing_else(project: Path) -> None:
    for path in ("tools.yml", "requirements.txt", "migrations/0001_a.yaml", "langgraph.json"):
        write(project, path, "{}")
    for path in (".env", ".git/HEAD", ".venv/x.py", "README.md", "other/x.py", "main.py", ".changeover/changeover.db"):
        write(project, path)
    for path in ("prompts/.env", "prompts/.env.local", "graphs/__pycache__/a.pyc", "graphs/node_modules/a.js"):
        write(project, path)
    for path in ("prompts/.support.md.swp", "prompts/support.md~", "prompts/4913", "prompts/a.tmp", "graphs/#a.py#"):
        write(project, path)
    os.symlink("user@host.1:2", project / "prompts/.#support.md")
    write(project, "graphs/myenv/pyvenv.cfg")
    write(project, "graphs/myenv/lib/x.py")
    snapshot = take(project)
    expected = [*PROJECT, "langgraph.json", "migrations/0001_a.yaml", "requirements.txt", "tools.yml"]
    assert list(snapshot.files) == sorted(expected)
    assert snapshot.problems == ()


def test_included_folders_and_files_belong_to_the_version(project: Path) -> None:
    write(project, "changeover.yaml", "include: [data/kb, ./specs, lib/one.py]\n")
    for path in ("data/kb/a.txt", "data/other.txt", "specs/shop.yaml", "lib/one.py", "lib/two.py"):
        write(project, path)
    taken = set(take(project).files) - set(PROJECT) - {"changeover.yaml"}
    assert taken == {"data/kb/a.txt", "specs/shop.yaml", "lib/one.py"}


def test_an_include_that_leads_out_or_nowhere_is_a_problem(project: Path) -> None:
    write(project, "changeover.yaml", "include: [../elsewhere, /etc, missing]\n")
    snapshot = take(project)
    assert [problem.code for problem in snapshot.problems] == ["include"] * 3
    assert list(snapshot.files) == sorted([*PROJECT, "changeover.yaml"])


def test_dependency_folders_of_langgraph_json_belong_to_the_version(project: Path) -> None:
    write(project, "langgraph.json", '{"dependencies": ["./my_agent", "langchain"], "graphs": {"a": "./g.py:graph"}}')
    write(project, "my_agent/src/a.py")
    write(project, "g.py")
    write(project, "h.py")
    assert {"my_agent/src/a.py", "g.py"} < set(take(project).files)
    assert "h.py" not in take(project).files
    write(project, "langgraph.json", '{"dependencies": ["."]}')
    write(project, ".env")
    assert "h.py" in take(project).files
    assert ".env" not in take(project).files


def test_how_the_server_runs_is_no_part_of_the_version(project: Path) -> None:
    before = take(project)
    write(project, "changeover.yaml", "server: {port: 9}\n")
    served = take(project)
    assert served.digest == before.digest
    assert "changeover.yaml" not in served.files
    assert served.originals["changeover.yaml"] == b"server: {port: 9}\n"
    write(project, "changeover.yaml", "plugins: {kb: {class: 'a:B'}}\nserver: {port: 9}\n")
    with_plugin = take(project)
    write(project, "changeover.yaml", "# moved\nserver: {port: 10}\nplugins:\n  kb:\n    class: a:B\n")
    assert with_plugin.digest == take(project).digest != before.digest


@pytest.mark.parametrize(
    "text",
    [
        "include: [unclosed",
        "- a list",
        "a: &a [*a]",
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c]\ninclude: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
        "[" * 100_000,
        "- " * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_changeover_yaml_that_cannot_be_read_stays_as_it_is(project: Path, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    write(project, "changeover.yaml", content)
    assert take(project).files["changeover.yaml"] == content


def test_ignore_files_are_honoured_as_git_does(project: Path) -> None:
    write(project, ".gitignore", "*.log\n/prompts/drafts/\nsecret*\n")
    write(project, ".changeoverignore", "!kept.log\n")
    write(project, "prompts/.gitignore", "!secret.md\n*.bak\n")
    for path in ("prompts/a.log", "prompts/kept.log", "prompts/drafts/a.md", "graphs/drafts/a.md", "graphs/secret.py"):
        write(project, path)
    for path in ("prompts/secret.md", "prompts/x.bak", "graphs/x.bak"):
        write(project, path)
    taken = set(take(project).files) - set(PROJECT)
    assert taken == {"prompts/kept.log", "graphs/drafts/a.md", "prompts/secret.md", "graphs/x.bak"}


def test_a_project_file_that_is_ignored_is_warned_about(project: Path) -> None:
    write(project, ".gitignore", "agents.yaml\n")
    snapshot = take(project)
    assert "agents.yaml" not in snapshot.files
    assert codes(snapshot) == {"agents.yaml": "ignored-file"}
    assert snapshot.is_complete


def test_a_root_that_is_a_link_is_followed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("project")
    assert take(tmp_path / "current").digest == take(project).digest


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        take(tmp_path / "nowhere")
    assert "does not exist" in caught.value.message
    assert caught.value.hint


# --- links


def test_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    write(tmp_path, "..2024_01/agents.yaml", "agents: {}\n")
    write(tmp_path, "..2024_01/prompts/a.md", "one")
    (tmp_path / "..data").symlink_to("..2024_01")
    (tmp_path / "agents.yaml").symlink_to("..data/agents.yaml")
    (tmp_path / "prompts").symlink_to("..data/prompts")
    snapshot = take(tmp_path)
    assert dict(snapshot.files) == {"agents.yaml": b"agents: {}\n", "prompts/a.md": b"one"}
    assert snapshot.problems == ()


def test_links_inside_are_followed_and_links_out_are_refused(project: Path, tmp_path: Path) -> None:
    write(tmp_path, "outside/secret.md", "secret")
    write(project, "shared/tone.md", "tone")
    (project / "prompts/shared").symlink_to("../shared")
    (project / "prompts/out").symlink_to(tmp_path / "outside")
    (project / "prompts/out.md").symlink_to("../../outside/secret.md")
    (project / "prompts/nowhere.md").symlink_to("missing.md")
    snapshot = take(project)
    assert snapshot.files["prompts/shared/tone.md"] == b"tone"
    assert not any(b"secret" in content for content in snapshot.files.values())
    assert codes(snapshot) == {
        "prompts/out": "symlink-outside",
        "prompts/out.md": "symlink-outside",
        "prompts/nowhere.md": "symlink-broken",
    }


def test_a_link_cannot_carry_the_environment_into_a_version(project: Path) -> None:
    write(project, ".env", "KEY=secret")
    (project / "prompts/env.md").symlink_to("../.env")
    snapshot = take(project)
    assert codes(snapshot) == {"prompts/env.md": "symlink-forbidden"}
    assert "prompts/env.md" not in snapshot.files


def test_loops_of_links_end(project: Path) -> None:
    (project / "prompts/self").symlink_to(".")
    (project / "prompts/up").symlink_to("../prompts")
    (project / "prompts/eternal").symlink_to("eternal")
    (project / "graphs/prompts").symlink_to("../prompts")
    assert set(codes(take(project)).values()) == {"symlink-loop"}


# --- what is no file


def test_a_pipe_a_socket_and_a_folder_in_place_of_a_file_are_problems(project: Path) -> None:
    os.mkfifo(project / "prompts/pipe.md")
    (project / "tools.yaml").mkdir()
    (project / "migrations").write_text("a file")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(project / "prompts")  # the path of a socket may have a hundred characters only
        try:
            listener.bind("s")
        finally:
            os.chdir(here)
        snapshot = take(project)
    expected = {"prompts/pipe.md": "not-a-file", "prompts/s": "not-a-file", "tools.yaml": "not-a-file"}
    assert codes(snapshot) == {**expected, "migrations": "not-a-folder"}
    assert not snapshot.is_complete


def test_an_unreadable_file_or_folder_is_a_problem(
    shared_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    for path in ("agents.yaml", "prompts/support.md", "graphs/deep/a.py"):
        write(shared_folder, path)
    (shared_folder / "prompts/support.md").chmod(0)
    (shared_folder / "graphs/deep").chmod(0)
    with as_nobody():
        assert codes(take(shared_folder)) == {"prompts/support.md": "unreadable", "graphs/deep": "unreadable"}
    (shared_folder / "graphs/deep").chmod(0o700)


def test_a_name_that_is_not_utf8_is_a_problem_that_can_be_printed(project: Path) -> None:
    with open(os.path.join(os.fsencode(project), b"prompts", b"caf\xe9.md"), "wb"):
        pass
    assert codes(take(project)) == {"prompts/caf\\xe9.md": "path-encoding"}


def test_a_tree_that_is_too_deep_is_a_problem(project: Path) -> None:
    write(project, "graphs/" + "d/" * 60 + "a.py")
    assert list(codes(take(project)).values()) == ["too-deep"]


# --- limits


def test_a_huge_file_is_refused_without_being_read(project: Path) -> None:
    with open(project / "prompts/huge.md", "wb") as file:
        file.truncate(50_000_000_000)
    snapshot = take(project)
    assert codes(snapshot) == {"prompts/huge.md": "file-too-large"}
    assert "50,000,000,000" in snapshot.problems[0].message
    (project / "prompts/huge.md").unlink()
    assert take(project).digest != snapshot.digest


def test_a_version_that_is_too_large_or_has_too_many_files_is_refused(project: Path) -> None:
    snapshot = take(project, SnapshotLimits(version_bytes=10))
    assert [problem.code for problem in snapshot.problems] == ["version-too-large"]
    assert not snapshot.files
    assert "agents.yaml" in snapshot.manifest.entries
    assert "too-many-files" in codes(take(project, SnapshotLimits(files=3))).values()


# --- one instant


@contextmanager
def running(step: Callable[[int], object]) -> Iterator[None]:
    """Call `step` with a growing number, in a thread, until the block ends."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                step(number)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed


def test_a_folder_swapped_as_a_whole_is_never_seen_mixed(tmp_path: Path) -> None:
    pause = threading.Event()

    def generation(number: int) -> None:
        for path in ("agents.yaml", "tools.yaml", *(f"prompts/{index}.md" for index in range(20))):
            write(tmp_path, f"..{number}/{path}", f"{number:06}")
        (tmp_path / "..next").symlink_to(f"..{number}")
        (tmp_path / "..next").rename(tmp_path / "..data")
        pause.wait(0.03)

    generation(0)
    for name in ("agents.yaml", "tools.yaml", "prompts"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    seen: set[str] = set()
    with running(generation):
        while len(seen) < 6:
            snapshot = take(tmp_path)
            assert snapshot.problems == ()
            assert len(snapshot.files) == 22
            assert len(set(snapshot.files.values())) == 1
            seen.add(snapshot.digest)


def test_files_replaced_in_turn_are_seen_as_they_were_at_one_instant(project: Path) -> None:
    """The writer replaces a, then b: at every instant b is as old as a, or one older."""
    pause = threading.Event()

    def both(number: int) -> None:
        for name in ("prompts/a.md", "prompts/b.md"):
            write(project, "new.tmp", f"{number:06}")
            (project / "new.tmp").rename(project / name)
        pause.wait(0.04)

    both(0)
    with running(both):
        for _ in range(15):
            files = take(project).files
            assert int(files["prompts/a.md"]) - int(files["prompts/b.md"]) in (0, 1)


def test_a_folder_that_never_rests_is_refused_in_time(project: Path) -> None:
    """Whenever the file is opened to be read, it is written once more."""
    file, hook = write(project, "prompts/support.md"), threading.local()

    def write_once_more(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and getattr(hook, "is_armed", False) and str(arguments[0]).endswith("support.md"):
            hook.is_armed = False
            with file.open("a") as opened:
                opened.write("more")
            hook.is_armed = True

    sys.addaudithook(write_once_more)
    hook.is_armed = True
    try:
        with pytest.raises(SnapshotUnstable) as caught:
            take(project, deadline_s=0.3)
    finally:
        hook.is_armed = False
    assert "prompts/support.md" in caught.value.message
    assert caught.value.hint


def test_files_that_come_and_go_are_there_or_not_and_never_a_failure(project: Path) -> None:
    pause = threading.Event()

    def flicker(number: int) -> None:
        write(project.parent, "flicker.md", "here").rename(project / "prompts/flicker.md")
        pause.wait(0.035)
        (project / "prompts/flicker.md").unlink()
        pause.wait(0.005)

    with running(flicker):
        for _ in range(15):
            snapshot = take(project)
            assert snapshot.problems == ()
            assert snapshot.files.get("prompts/flicker.md", b"here") == b"here"


def test_a_save_of_the_same_length_right_after_the_last_is_seen(project: Path) -> None:
    for number in range(20):
        write(project, "prompts/support.md", f"{number:05}")
        assert take(project).files["prompts/support.md"] == b"%05d" % number


# --- with_files


def test_replaced_files_give_the_version_the_folder_would_give(project: Path) -> None:
    replaced = with_files(take(project), {"prompts/support.md": "new", "tools.yaml": "tools: {}\n"})
    write(project, "prompts/support.md", "new")
    write(project, "tools.yaml", "tools: {}\n")
    assert replaced.digest == take(project).digest


def test_a_replaced_changeover_yaml_is_reduced_too(project: Path) -> None:
    snapshot = take(project)
    assert with_files(snapshot, {"changeover.yaml": "server: {port: 1}\n"}).digest == snapshot.digest


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../x", "a//b", "./a", "a\\b", "a\0b", "a\nb", ".env", ".git/config", "\ud800"],
)
def test_a_path_that_leads_out_or_is_never_versioned_is_refused(project: Path, path: str) -> None:
    with pytest.raises(InvalidRequest):
        with_files(take(project), {path: "x"})


def test_replaced_files_keep_to_the_limits(project: Path) -> None:
    snapshot = take(project)
    with pytest.raises(InvalidRequest, match="limit"):
        with_files(snapshot, {"prompts/a.md": "x" * 11}, SnapshotLimits(file_bytes=10))
    with pytest.raises(InvalidRequest, match="limit"):
        with_files(snapshot, {"prompts/a.md": "x" * 11}, SnapshotLimits(version_bytes=20))


def test_a_missing_included_folder_may_be_given_with_the_files(project: Path) -> None:
    write(project, "changeover.yaml", "include: [data]\n")
    given = with_files(take(project), {"data/kb.txt": "text"})
    assert given.is_complete
    write(project, "data/kb.txt", "text")
    assert given.digest == take(project).digest


def test_replacing_a_file_with_a_problem_takes_the_problem_away(project: Path) -> None:
    os.mkfifo(project / "prompts/pipe.md")
    repaired = with_files(take(project), {"prompts/pipe.md": "text"})
    assert repaired.is_complete
    assert repaired.files["prompts/pipe.md"] == b"text"
