from __future__ import annotations

import pytest

from swiftlet.model.error import CycleError, InputError, NotFoundError
from swiftlet.model.template import MAX_REQUIRES
from swiftlet.resolve.catalogue import Catalogue, fits, version_key


@pytest.fixture
def catalogue(tmp_path):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (tmp_path / "root" / "templates").mkdir(parents=True)
    write(recipes, "nginx", "1.22.1")
    write(recipes, "nginx", "1.9")
    write(recipes, "python", "3.11", requires=["base"])
    write(recipes, "base", "1")
    write(recipes, "app", "1", requires=["python@3", "base"])
    return Catalogue(str(tmp_path / "root"), folder=str(tmp_path), recipes=str(recipes))


def write(folder, name, version, requires=(), more=""):
    text = f"name: {name}\nversion: {version}\nrequires: [{', '.join(requires)}]\n{more}"
    path = folder / f"{name}-{version}.yaml"
    path.write_text(text)
    return path


def names(located):
    return [item.reference for item in located]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("nginx", "nginx@1.22.1"),
        ("nginx@1.22", "nginx@1.22.1"),
        ("nginx@1", "nginx@1.22.1"),
        ("nginx@1.9", "nginx@1.9"),
        ("nginx@1.*", "nginx@1.22.1"),
        ("python@3.11", "python@3.11"),
    ],
)
def test_a_version_is_a_prefix_and_the_newest_wins(catalogue, wanted, found):
    assert catalogue.find(wanted).reference == found


def test_a_prefix_ends_where_a_number_ends():
    assert not fits("1.22", "1.2") and not fits("3.11", "3.1") and fits("3.11", "3")
    assert version_key("3.9") < version_key("3.11")


def test_an_unknown_name_gets_near_ones(catalogue):
    with pytest.raises(NotFoundError, match="no template ngnix") as caught:
        catalogue.find("ngnix")
    assert "nginx" in caught.value.hint and "deb:ngnix" in caught.value.hint


def test_a_version_that_is_not_there_gets_those_that_are(catalogue):
    with pytest.raises(NotFoundError, match="template nginx has no version 2") as caught:
        catalogue.find("nginx@2")
    assert "1.9, 1.22.1" in caught.value.hint


def test_a_stack_is_each_template_and_what_it_requires_none_twice(catalogue):
    assert names(catalogue.stack(["nginx", "app", "python"])) == ["nginx@1.22.1", "app@1", "python@3.11", "base@1"]


def test_a_users_template_hides_a_shipped_one(catalogue, tmp_path):
    write(tmp_path / "root" / "templates", "base", "1", more="description: mine\n")
    assert catalogue.find("base").template.description == "mine"


def test_a_damaged_file_of_the_user_is_named(catalogue, tmp_path):
    (tmp_path / "root" / "templates" / "x.yaml").write_text("name: [\n")
    with pytest.raises(InputError, match=r"templates/x\.yaml"):
        catalogue.find("base")


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not_parsed(catalogue, tmp_path, monkeypatch):
    path = write(tmp_path, "own", "1")
    assert catalogue.find(str(path)).template.description == ""
    write(tmp_path, "own", "1", more="description: new\n")
    assert catalogue.find("own-1.yaml").template.description == "new"
    again = Catalogue(str(tmp_path / "root"), folder=str(tmp_path), recipes=catalogue.recipes)
    monkeypatch.setattr("swiftlet.resolve.template.parse_template", None)
    assert again.find("./own-1.yaml").template.description == "new"


def test_a_damaged_cache_is_no_harm(catalogue, tmp_path):
    path = write(tmp_path, "own", "1")
    catalogue.find(str(path))
    for cached in (tmp_path / "root" / "cache" / "templates").iterdir():
        cached.write_bytes(b"{")
    assert catalogue.find(str(path)).template.name == "own"


def test_two_files_of_one_name_are_two_templates(catalogue, tmp_path):
    (tmp_path / "a").mkdir()
    one, other = write(tmp_path, "own", "1"), write(tmp_path / "a", "own", "1")
    assert catalogue.find(str(one)).reference != catalogue.find(str(other)).reference


def test_a_relative_file_starts_where_it_is_written(catalogue, tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", "low", "1")
    path = write(tmp_path / "a", "high", "1", requires=["./low-1.yaml"])
    assert [item.template.name for item in catalogue.stack([str(path)])] == ["high", "low"]


def test_a_cycle_is_named_in_order(catalogue, tmp_path):
    folder = tmp_path / "root" / "templates"
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        write(folder, name, "1", requires=[other])
    with pytest.raises(CycleError, match="b@1 -> c@1 -> a@1 -> b@1"):
        catalogue.stack(["nginx", "b"])
    write(folder, "self", "1", requires=["self"])
    with pytest.raises(CycleError, match="self@1 -> self@1"):
        Catalogue(str(tmp_path / "root"), recipes=catalogue.recipes).stack(["self"])


def test_ten_thousand_nested_requires_are_refused_and_nothing_overflows(tmp_path):
    folder = tmp_path / "templates"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number}.yaml").write_text(f"name: t{number}\nversion: 1\nrequires: [{folder}/{number + 1}.yaml]\n")
    catalogue = Catalogue(str(tmp_path / "root"), recipes=str(tmp_path / "none"))
    with pytest.raises(InputError, match=f"more than {MAX_REQUIRES} templates"):
        catalogue.stack([f"{folder}/0.yaml"])


def test_wide_requires_are_refused_too(tmp_path):
    folder = tmp_path / "root" / "templates"
    folder.mkdir(parents=True)
    for number in range(MAX_REQUIRES + 1):
        write(folder, f"t{number}", "1")
    write(folder, "all", "1", requires=[f"t{number}" for number in range(MAX_REQUIRES + 1)])
    with pytest.raises(InputError, match="more than"):
        Catalogue(str(tmp_path / "root"), recipes="/none").stack(["all"])


def test_packages_and_programs_of_the_host_need_no_file(catalogue):
    package = catalogue.find("deb:redis-server=5:7.*")
    assert package.template.packages == ("redis-server=5:7.*",) and package.family
    assert package.reference == "deb:redis-server=5:7.*"
    program = catalogue.find("host:/usr/bin/make")
    assert program.template.files == {"make": "/usr/bin/make"}
    assert program.template.entrypoint == ("/usr/bin/make",)


@pytest.mark.parametrize("reference", ["none.yaml", "/dev/zero.yaml", "a\0.yaml", "../x", "deb:"])
def test_what_is_nothing_is_one_clear_error(catalogue, reference):
    with pytest.raises((InputError, NotFoundError)):
        catalogue.find(reference)
