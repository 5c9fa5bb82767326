"""Where projects come from: folders, scripts, repositories at any version, zip files; real git, no network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mlcli import config
from mlcli.errors import ProjectError
from mlcli.projects import command, entry_point, git, load
from mlcli.projects.source import locate

MLPROJECT = 'name: demo\nentry_points:\n  main:\n    command: "python train.py"\n'


def run_git(folder, *arguments):
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder, message="change"):
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-q", "--no-verify", "-m", message)
    return run_git(folder, "rev-parse", "HEAD")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "demo"
    path.mkdir()
    (path / "MLproject").write_text(MLPROJECT)
    (path / "train.py").write_text("print(1)\n")
    return path


@pytest.fixture
def repo(folder):
    """Two commits on main (tag v1 on the first), a branch with a slash, a folder with a project of its own."""
    run_git(folder, "init", "-q")
    commit(folder, "first")
    run_git(folder, "tag", "-a", "v1", "-m", "one")
    (folder / "sub").mkdir()
    (folder / "sub" / "MLproject").write_text(MLPROJECT.replace("demo", "inner"))
    (folder / "train.py").write_text("print(2)\n")
    commit(folder, "second")
    run_git(folder, "branch", "feature/x", "v1")
    run_git(folder, "remote", "add", "origin", "https://me:secret@example.invalid/demo.git")
    return folder


@pytest.fixture
def bare(repo, tmp_path):
    path = tmp_path / "remote.git"
    run_git(tmp_path, "clone", "-q", "--bare", str(repo), str(path))
    return path


# --- folders


def test_a_folder_is_used_in_place(folder):
    found = load(str(folder))
    assert found.folder == str(folder)
    assert found.source.commit is None
    assert found.name == "demo"


def test_the_current_folder_is_a_project(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load(".").folder == str(folder)


@pytest.mark.parametrize("form", ["{}", "file://{}", "'{}'", "{}/", "{}/MLproject", "{}/../demo"])
def test_other_ways_to_name_a_folder(form, folder):
    assert load(form.format(folder)).folder == str(folder)


@pytest.mark.parametrize("name", ["MLproject", "MLProject", "mlproject", "MLPROJECT"])
def test_the_file_is_found_in_any_case(name, tmp_path):
    (tmp_path / name).write_text(MLPROJECT)
    found = load(str(tmp_path))
    assert found.file == str(tmp_path / name)
    assert found.problems == ()


@pytest.mark.parametrize("name", ["MLproject.yaml", "mlproject.yml"])
def test_a_file_that_mlflow_overlooks_is_read_with_a_warning(name, tmp_path):
    (tmp_path / name).write_text(MLPROJECT)
    found = load(str(tmp_path))
    assert found.name == "demo"
    assert [(p.level, p.code, p.hint) for p in found.problems] == [("warning", "file-name", "rename it to MLproject")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells cases apart")
def test_two_files_in_different_case_are_an_error(tmp_path):
    for name in ("MLproject", "MLProject"):
        (tmp_path / name).write_text(MLPROJECT)
    with pytest.raises(ProjectError, match="differ only in case"):
        load(str(tmp_path))


def test_a_subfolder_follows_the_hash(repo):
    found = load(f"{repo}#sub")
    assert (found.name, found.folder, found.source.subdir) == ("inner", str(repo / "sub"), "sub")


@pytest.mark.parametrize("subdir", ["../", "sub/../..", "/etc", "link"])
def test_a_subfolder_never_leaves_its_project(subdir, repo, tmp_path):
    (tmp_path / "outside").mkdir()
    (repo / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ProjectError, match="not a folder inside"):
        load(f"{repo}#{subdir}")


def test_a_hash_in_a_folders_name_is_no_subfolder(tmp_path):
    path = tmp_path / "c#sharp"
    path.mkdir()
    (path / "MLproject").write_text(MLPROJECT)
    assert load(str(path)).folder == str(path)


def test_a_mistyped_folder_gets_near_names_and_no_git_error(folder):
    with pytest.raises(ProjectError, match="no such folder") as caught:
        load(str(folder.parent / "dem"))
    assert caught.value.hint == f"did you mean {folder}?"


def test_a_mistyped_subfolder_gets_near_names(repo):
    with pytest.raises(ProjectError, match="no folder `subb`") as caught:
        load(f"{repo}#subb")
    assert caught.value.hint == "did you mean sub?"


def test_an_address_without_https_gets_it_as_a_hint():
    with pytest.raises(ProjectError) as caught:
        load("github.com/me/demo")
    assert "https://github.com/me/demo" in caught.value.hint


@pytest.mark.parametrize("uri", ["", " ", "-x", "--upload-pack=x", "a\nb", "a\0b"])
def test_what_is_no_address_at_all_is_refused(uri):
    with pytest.raises(ProjectError, match="not a project"):
        load(uri)


# --- scripts and entry points


def test_a_script_file_is_a_project(folder):
    found = load(str(folder / "train.py"))
    assert command(found, entry_point(found), {"a": "1 2"}).argv == ("python", "train.py", "--a", "1 2")


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("x.py", ("python", "x.py")),
        ("x.sh", ("bash", "x.sh")),
        ("x.R", ("Rscript", "x.R")),
        ("a b{c}'.py", ("python", "a b{c}'.py")),
        ("-x.py", ("python", "./-x.py")),
        ("$(touch PWN).sh", ("bash", "$(touch PWN).sh")),
    ],
)
def test_an_undeclared_script_is_an_entry_point(name, argv, folder):
    (folder / name).write_text("")
    found = load(str(folder))
    assert command(found, entry_point(found, name), {}).argv == argv


def test_a_declared_entry_point_wins_over_a_script(folder):
    (folder / "MLproject").write_text('entry_points:\n  train.py:\n    command: "python other.py"\n')
    found = load(str(folder))
    assert command(found, entry_point(found, "train.py"), {}).argv == ("python", "other.py")


def test_a_script_that_is_not_there_is_named_with_near_names(folder):
    with pytest.raises(ProjectError, match=r"no script `trian\.py`") as caught:
        entry_point(load(str(folder)), "trian.py")
    assert "train.py" in caught.value.hint


def test_the_only_entry_point_is_taken_without_main(folder):
    (folder / "MLproject").write_text(MLPROJECT.replace("main", "train"))
    found = load(str(folder))
    made = command(found, entry_point(found), {})
    assert made.argv == ("python", "train.py")
    assert "`train` is the only one" in made.notes[0]


def test_several_entry_points_without_main_are_listed(folder):
    (folder / "MLproject").write_text("entry_points:\n  a: {command: x}\n  b: {command: y}\n")
    with pytest.raises(ProjectError) as caught:
        entry_point(load(str(folder)))
    assert "`a` and `b`" in caught.value.hint


def test_a_mistyped_entry_point_gets_a_guess(folder):
    with pytest.raises(ProjectError, match="no entry point `mian`") as caught:
        entry_point(load(str(folder)), "mian")
    assert caught.value.hint == "did you mean `main`?"


def test_main_is_not_replaced_when_it_was_asked_for(folder):
    (folder / "MLproject").write_text(MLPROJECT.replace("main", "train"))
    with pytest.raises(ProjectError, match="no entry point `main`"):
        entry_point(load(str(folder)), "main")


def test_misspelt_entry_points_are_named(folder):
    (folder / "MLproject").write_text(MLPROJECT.replace("entry_points", "entry_point"))
    with pytest.raises(ProjectError, match="line 2 has `entry_point`, did you mean `entry_points`"):
        entry_point(load(str(folder)))


def test_a_folder_with_one_script_runs_it(tmp_path):
    for name in ("go.py", "setup.py", "test_go.py", "conftest.py", "__init__.py"):
        (tmp_path / name).write_text("")
    found = load(str(tmp_path))
    made = command(found, entry_point(found), {})
    assert made.argv == ("python", "go.py")
    assert "only script" in made.notes[0]


def test_a_folder_with_several_scripts_lists_them(tmp_path):
    for name in ("a.py", "b.sh"):
        (tmp_path / name).write_text("")
    with pytest.raises(ProjectError, match="no MLproject file") as caught:
        entry_point(load(str(tmp_path)))
    assert "`a.py` and `b.sh`" in caught.value.hint


def test_projects_in_folders_below_are_suggested(tmp_path):
    for name in ("zoo", "src"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MLproject").write_text(MLPROJECT)
    with pytest.raises(ProjectError) as caught:
        entry_point(load(str(tmp_path)))
    assert "`src` and `zoo`" in caught.value.hint
    assert f"{tmp_path}#src" in caught.value.hint
    assert load(f"{tmp_path}#src").name == "demo"


# --- the state of a work tree


def test_the_state_of_a_work_tree_is_known(repo):
    source = load(str(repo)).source
    assert source.commit == run_git(repo, "rev-parse", "HEAD")
    assert (source.branch, source.dirty, source.root) == ("main", False, str(repo))
    assert source.repo_url == "https://example.invalid/demo.git"


def test_a_change_makes_a_work_tree_dirty_and_is_in_the_diff(repo):
    (repo / "train.py").write_text("print(3)\n")
    (repo / "new.txt").write_text("x")
    assert load(str(repo)).source.dirty is True
    patch = git.diff(str(repo)).decode()
    assert "-print(2)\n+print(3)\n" in patch
    assert "# new, not in git: new.txt" in patch


def test_a_new_file_alone_leaves_a_work_tree_clean(repo):
    (repo / "mlruns").mkdir()
    (repo / "mlruns" / "mlcli.db").write_text("")
    assert load(str(repo)).source.dirty is False


def test_a_huge_diff_is_cut(repo, monkeypatch):
    monkeypatch.setattr(git, "MAX_DIFF", 2000)
    (repo / "train.py").write_text("x\n" * 5000)
    patch = git.diff(str(repo))
    assert len(patch) < 2200
    assert b"# cut here" in patch


def test_packed_refs_detached_heads_and_linked_work_trees_are_read(repo, tmp_path):
    head = run_git(repo, "rev-parse", "HEAD")
    run_git(repo, "pack-refs", "--all")
    assert git.state(str(repo)).commit == head
    run_git(repo, "worktree", "add", "-q", str(tmp_path / "linked"), "feature/x")
    linked = git.state(str(tmp_path / "linked"))
    assert (linked.commit, linked.branch) == (run_git(repo, "rev-parse", "v1^{commit}"), "feature/x")
    assert linked.repo_url == "https://example.invalid/demo.git"
    run_git(repo, "checkout", "-q", "--detach")
    assert git.state(str(repo))[1:3] == (head, None)


def test_a_repository_without_commit_has_none(folder):
    run_git(folder, "init", "-q")
    assert git.state(str(folder))[1:3] == (None, "main")


def test_a_folder_that_git_ignores_belongs_to_no_commit(repo):
    (repo / ".gitignore").write_text("ignored/\n")
    (repo / "ignored").mkdir()
    assert git.state(str(repo / "ignored")) is None
    assert git.state(str(repo / "sub")).commit == run_git(repo, "rev-parse", "HEAD")


def test_without_git_the_commit_is_still_known(repo, monkeypatch, tmp_path):
    head = run_git(repo, "rev-parse", "HEAD")
    monkeypatch.setenv("PATH", str(tmp_path))
    state = git.state(str(repo))
    assert (state.commit, state.branch, state.dirty) == (head, "main", None)
    with pytest.raises(ProjectError, match="git is not installed"):
        load(str(repo), "v1")


def test_variables_of_git_point_nowhere_else(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert git.state(str(repo)).dirty is False


def test_no_program_that_a_repository_configures_is_run(repo, tmp_path):
    mark = tmp_path / "PWN"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "core.pager"):
        run_git(repo, "config", name, str(script))
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        path = repo / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script.read_text())
        path.chmod(0o755)
    (repo / "train.py").write_text("print(4)\n")
    assert load(str(repo)).source.dirty is True
    git.diff(str(repo))
    load(str(repo), "v1")
    assert not mark.exists()


# --- versions of a folder's own repository


@pytest.mark.parametrize("version", ["v1", "feature/x", "full", "short"])
def test_a_version_of_a_folder_is_checked_out_elsewhere(version, repo):
    first = run_git(repo, "rev-parse", "v1^{commit}")
    (repo / "train.py").write_text("print('my change')\n")
    found = load(str(repo), {"full": first, "short": first[:7]}.get(version, version))
    assert Path(found.folder, "train.py").read_text() == "print(1)\n"
    assert found.source.commit == first
    assert found.source.branch == (version if version == "feature/x" else None)
    assert found.folder.startswith(config.cache_root())
    assert (repo / "train.py").read_text() == "print('my change')\n"
    assert run_git(repo, "status", "--porcelain") == "M train.py"
    assert run_git(found.folder, "rev-parse", "HEAD") == first
    assert run_git(found.folder, "remote", "get-url", "origin") == "https://example.invalid/demo.git"


def test_a_version_is_checked_out_once_and_restored(repo):
    first = load(str(repo), "v1").folder
    Path(first, "train.py").write_text("broken")
    Path(first, "made.txt").write_text("")
    assert load(str(repo), "v1").folder == first
    assert Path(first, "train.py").read_text() == "print(1)\n"


def test_a_folder_inside_a_repository_has_versions_too(repo):
    found = load(str(repo / "sub"), "main")
    assert found.name == "inner"
    assert found.folder.endswith(f"{os.sep}sub")
    with pytest.raises(ProjectError, match="has no folder sub"):
        load(str(repo / "sub"), "v1")


def test_an_unknown_version_gets_near_names(repo):
    with pytest.raises(ProjectError, match="no branch, tag or commit `featur/x`") as caught:
        load(str(repo), "featur/x")
    assert caught.value.hint == "did you mean `feature/x`?"


def test_a_folder_without_git_has_no_versions(folder):
    with pytest.raises(ProjectError, match="in no git repository"):
        load(str(folder), "v1")


@pytest.mark.parametrize("version", ["-x", "--upload-pack=touch PWN", "a b", "v1:train.py", "a..b", "x\n", "v*", "a^"])
def test_a_version_that_is_none_is_refused_before_git_starts(version, repo, bare, monkeypatch):
    started = []
    monkeypatch.setattr(git, "_start", lambda *a, **k: started.append(a))
    for uri in (str(repo), f"file://{bare}"):
        with pytest.raises(ProjectError, match="not a version"):
            load(uri, version)
    assert started == []


# --- repositories elsewhere


def test_a_repository_is_fetched_and_its_head_checked_out(repo, bare):
    said = []
    found = load(f"file://{bare}", progress=said.append)
    assert Path(found.folder, "train.py").read_text() == "print(2)\n"
    assert found.source.commit == run_git(repo, "rev-parse", "HEAD")
    assert (found.source.branch, found.source.dirty) == ("main", False)
    assert said == [f"fetching file://{bare}"]


@pytest.mark.parametrize("version", ["v1", "feature/x", "full", "short", "old"])
def test_any_version_of_a_repository_is_found(version, repo, bare):
    first, head = run_git(repo, "rev-parse", "v1^{commit}"), run_git(repo, "rev-parse", "HEAD")
    name, wanted = {"full": (first, first), "short": (head[:8], head), "old": (first[:8], first)}.get(
        version, (version, first)
    )
    found = load(f"file://{bare}", name)
    assert found.source.commit == wanted
    assert found.source.version == name
    assert run_git(found.folder, "rev-parse", "HEAD") == wanted


def test_a_commit_that_no_branch_points_at_is_found(repo, bare):
    (repo / "train.py").write_text("print(3)\n")
    third = commit(repo)
    (repo / "train.py").write_text("print(4)\n")
    commit(repo)
    run_git(repo, "push", "-q", str(bare), "main")
    assert load(f"file://{bare}").source.commit != third
    assert Path(load(f"file://{bare}", third[:10]).folder, "train.py").read_text() == "print(3)\n"


def test_new_commits_are_fetched_and_old_trees_reused(repo, bare):
    first = load(f"file://{bare}")
    (repo / "train.py").write_text("print(3)\n")
    commit(repo)
    run_git(repo, "push", "-q", str(bare), "main")
    second = load(f"file://{bare}")
    assert Path(second.folder, "train.py").read_text() == "print(3)\n"
    assert load(f"file://{bare}", first.source.commit).folder == first.folder


def test_a_full_commit_in_the_cache_needs_no_network(bare, monkeypatch):
    found = load(f"file://{bare}", "v1")
    asked = []
    monkeypatch.setattr(git, "_remote_refs", asked.append)
    assert load(f"file://{bare}", found.source.commit).folder == found.folder
    assert asked == []


def test_a_bare_repository_of_this_machine_is_a_repository(bare, monkeypatch):
    assert load(str(bare)).name == "demo"
    monkeypatch.chdir(bare.parent)
    assert load(f"{bare.name}#sub").name == "inner"


def test_a_subfolder_of_a_repository(bare):
    found = load(f"file://{bare}#sub", "main")
    assert (found.name, found.source.subdir) == ("inner", "sub")


def test_submodules_are_followed_only_when_asked(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    other = tmp_path / "other"
    other.mkdir()
    run_git(other, "init", "-q")
    (other / "data.txt").write_text("x")
    commit(other)
    run_git(repo, "submodule", "add", "-q", str(other), "lib")
    commit(repo)
    assert os.listdir(Path(load(str(repo), "main").folder, "lib")) == []
    assert Path(load(str(repo), "main", submodules=True).folder, "lib", "data.txt").exists()


def test_a_repository_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ProjectError, match="no such folder"):
        load(f"file://{tmp_path}/none.git")
    with pytest.raises(ProjectError, match="cannot be read") as caught:
        load("http://127.0.0.1:9/none.git")
    assert "git ls-remote http://127.0.0.1:9/none.git" in caught.value.hint


def test_an_unknown_version_of_a_repository_lists_what_there_is(bare):
    with pytest.raises(ProjectError, match="no branch, tag or commit `zzz`") as caught:
        load(f"file://{bare}", "zzz")
    assert "feature/x" in caught.value.hint


def test_credentials_never_show(tmp_path):
    with pytest.raises(ProjectError) as caught:
        load("http://me:secret@127.0.0.1:9/demo.git")
    assert "secret" not in str(caught.value) + caught.value.hint
    assert git.strip_credentials("ssh://me:secret@host/x") == "ssh://me@host/x"
    assert git.strip_credentials("git@host:x/y") == "git@host:x/y"


@pytest.mark.parametrize(
    "uri",
    ["ext::sh -c 'touch PWN'", "ext::sh", "fd::17", "ssh://-oProxyCommand=touch/x", "git@-oProxyCommand=x:y", "git://host/x",
     "ftp://host/x", "https://-x/y", "ssh://me@-x/y", "http::https://x/y"],
)  # fmt: skip
def test_dangerous_addresses_are_refused_before_git_starts(uri, monkeypatch):
    started = []
    monkeypatch.setattr(git, "_start", lambda *a, **k: started.append(a))
    with pytest.raises(ProjectError):
        load(uri)
    assert started == []


@pytest.mark.parametrize(
    ("uri", "url", "path"),
    [
        ("https://github.com/me/demo/tree/main/a/b", "https://github.com/me/demo.git", "main/a/b"),
        ("https://github.com/me/demo/tree/v1", "https://github.com/me/demo.git", "v1"),
        ("https://gitlab.com/g/s/demo/-/tree/main/a", "https://gitlab.com/g/s/demo", "main/a"),
        ("git+https://github.com/me/demo", "https://github.com/me/demo", ""),
        ("git@github.com:me/demo.git", "git@github.com:me/demo.git", ""),
        ("ssh://git@host:22/me/demo.git", "ssh://git@host:22/me/demo.git", ""),
    ],
)
def test_addresses_as_people_paste_them(uri, url, path, monkeypatch, tmp_path):
    asked = []

    def checkout(url, version, *, path="", submodules=False, progress=None):
        asked.append((url, path))
        return git.Checkout(str(tmp_path), "0" * 40, None, url, "")

    monkeypatch.setattr(git, "checkout", checkout)
    locate(uri)
    assert asked == [(url, path)]


@pytest.mark.parametrize(
    ("path", "version", "subdir"),
    [("main", "main", ""), ("feature/x/sub/y", "feature/x", "sub/y"), ("v1/a", "v1", "a"), ("abc/a", "abc", "a")],
)
def test_a_branch_with_slashes_is_told_from_a_folder(path, version, subdir):
    refs = {"refs/heads/main": "", "refs/heads/feature/x": "", "refs/tags/v1": ""}
    assert git._split_path(path, refs) == (version, subdir)


def test_two_fetches_at_once_both_work(bare):
    script = "import sys; from mlcli.projects import load; print(load(sys.argv[1]).folder)"
    children = [
        subprocess.Popen([sys.executable, "-c", script, f"file://{bare}"], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    folders = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0] * 4
    assert len(folders) == 1


def test_a_half_made_tree_is_made_again(bare):
    found = load(f"file://{bare}")
    Path(f"{found.folder}.used").unlink()
    Path(found.folder, "train.py").unlink()
    assert Path(load(f"file://{bare}").folder, "train.py").exists()


def test_a_damaged_mirror_is_made_again(bare):
    load(f"file://{bare}")
    [mirror] = Path(config.cache_root(), "git").glob("*.git")
    (mirror / "HEAD").unlink()
    assert load(f"file://{bare}").name == "demo"


def test_trees_that_nobody_uses_are_removed(repo):
    old = load(str(repo), "v1").folder
    past = time.time() - (git.KEEP_DAYS + 1) * 86400
    os.utime(f"{old}.used", (past, past))
    os.utime(Path(config.cache_root(), "projects", ".pruned"), (past, past))
    new = load(str(repo), "main").folder
    assert not os.path.exists(old)
    assert os.path.exists(new)


# --- zip files


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def test_a_zip_file_is_a_project(tmp_path):
    uri = zipped(
        tmp_path / "p.zip",
        {"MLproject": MLPROJECT, "train.py": "", "sub/MLproject": MLPROJECT.replace("demo", "inner")},
    )
    assert load(uri).name == "demo"
    assert load(f"{uri}#sub").name == "inner"
    assert load(f"file://{uri}").folder == load(uri).folder


def test_a_zip_file_with_one_folder_is_that_folder(tmp_path):
    assert load(zipped(tmp_path / "p.zip", {"demo-main/MLproject": MLPROJECT})).name == "demo"


@pytest.mark.parametrize("subdir", ["train", "demo-main/train"])
def test_a_folder_of_a_zip_file_counts_from_its_top_or_from_its_only_folder(subdir, tmp_path):
    members = {"demo-main/MLproject": "name: outer\n", "demo-main/train/MLproject": MLPROJECT}
    assert load(zipped(tmp_path / "p.zip", members) + f"#{subdir}").name == "demo"


def test_a_folder_that_is_not_in_the_project_is_answered_with_the_one_that_was_meant(tmp_path):
    uri = zipped(tmp_path / "p.zip", {"MLproject": MLPROJECT, "training/MLproject": MLPROJECT})
    with pytest.raises(ProjectError, match="no folder `trainning`") as caught:
        load(f"{uri}#trainning")
    assert caught.value.hint == "did you mean training?"


def test_scripts_in_a_zip_file_stay_executable(tmp_path):
    member = zipfile.ZipInfo("go.sh")
    member.external_attr = 0o100755 << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(member, "#!/bin/sh\n")
        archive.writestr("MLproject", MLPROJECT)
    assert os.access(Path(load(str(tmp_path / "p.zip")).folder, "go.sh"), os.X_OK)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\..\\x", "C:/x", "a//b", "./x"])
def test_a_zip_file_never_leaves_its_folder(name, tmp_path):
    with pytest.raises(ProjectError, match="leave its folder"):
        load(zipped(tmp_path / "p.zip", {"MLproject": MLPROJECT, name: "x"}))
    assert not (tmp_path / "x").exists()


def test_a_link_in_a_zip_file_is_refused(tmp_path):
    member = zipfile.ZipInfo("link")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(ProjectError, match="neither file nor folder"):
        load(str(tmp_path / "p.zip"))


def test_a_zip_bomb_is_refused(tmp_path):
    with pytest.raises(ProjectError, match="unpacks to"):
        load(zipped(tmp_path / "p.zip", {"zeros": b"\0" * (70 << 20)}))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_what_is_no_zip_file_is_refused(content, tmp_path):
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(ProjectError, match="not a zip file"):
        load(str(tmp_path / "p.zip"))


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("a/b", "2")
    with pytest.raises(ProjectError, match="twice"):
        load(str(tmp_path / "p.zip"))


def test_a_zip_file_has_no_versions(tmp_path):
    with pytest.raises(ProjectError, match="no versions"):
        load(zipped(tmp_path / "p.zip", {"MLproject": MLPROJECT}), "v1")


def test_the_package_names_what_it_says():
    import ast

    import mlcli.projects as package

    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert told == {(module, name) for name, module in package._HOMES.items()}
    for _, name in told:
        assert getattr(package, name).__name__ == name
