"""Imports run downward only, and the heavy or foreign packages stay in the files that own them."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "headswap"
FLOORS = {
    0: "recurrent search_space masking token_targets words word_checks label_lists references spans squad __init__ errors seeds contracts answers results table_task text_task targets spine ranges typecheck config composition placeholders confinement sources rows checks hub losses bodyfiles tokenizer_check hashes durable machine shield stopping phases layers overlays tracked fitted identity",
    1: "tasks bodies heads strategies metrics trackers baselines",
    2: "frozen body_output cuts restart data encoded features bodyload tables arrow_cache model bodyconfig taskconfig warm_start architecture gates weights ledger hardware records engines sharding",
    3: "flops loop body_change movement training afterstep step checkpoint schedule evaluate modelcard",
    4: "run run_data baseline_run runlog tracking curve lineage worker warm elastic resume provenance summary",
    5: "sweep study predict export embed launch pool ray_pool ray_task prepare stages verify screen transferability byte_pairs measures",
    6: "cli commands tokenizer_commands sweep_commands model_commands predict_commands screen_commands measure_commands commandline hydra_app overview study_overview progress __main__",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
OWNERS = {
    "accelerate": {"hardware"},
    "hydra": {"composition", "hydra_app", "search_space"},
    "omegaconf": {"composition", "hydra_app"},
}
# On this floor every package is a plug, and plugs do not know one another.
SAME_FLOOR_STRANGERS = {1}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else [node for node in ast.walk(tree) if id(node) not in checking]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def headswap_parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("headswap.") and name != "headswap.__version__"}


def test_every_module_stands_on_a_floor():
    assert {part(path) for path in SOURCE.rglob("*.py")} - FLOOR_OF.keys() == set()


def test_imports_run_downward_only():
    upward = [
        f"{path.name} imports {name}"
        for path in SOURCE.rglob("*.py")
        if part(path) != "__init__"
        for name in headswap_parts(imports(path))
        if name in FLOOR_OF and FLOOR_OF[name] > FLOOR_OF[part(path)]
    ]
    assert upward == []


def test_plugs_do_not_import_one_another():
    crossing = [
        f"{path.name} imports {name}"
        for path in SOURCE.rglob("*.py")
        if FLOOR_OF[part(path)] in SAME_FLOOR_STRANGERS
        for name in headswap_parts(imports(path))
        if FLOOR_OF.get(name) == 1 and name != part(path)
    ]
    assert crossing == []


def test_foreign_packages_stay_with_their_owners():
    strays = [
        f"{path.name} imports {name}"
        for path in SOURCE.rglob("*.py")
        for name in imports(path)
        if (package := name.split(".")[0]) in OWNERS and part(path) not in OWNERS[package]
    ]
    assert strays == []


def test_what_the_command_line_reads_imports_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "accelerate", "evaluate", "pandas", "sklearn", "pyarrow", "numpy"}
    light = [
        path
        for path in SOURCE.rglob("*.py")
        if FLOOR_OF[part(path)] in (0, 1, 5, 6) and path.name != "modules.py" and part(path) != "recurrent"
    ]
    found = [
        f"{path.name} imports {name}"
        for path in light
        if part(path)
        in (
            "tasks",
            "bodies",
            "heads",
            "strategies",
            "metrics",
            "trackers",
            "baselines",
            "cli",
            "commands",
            "model_commands",
            "screen_commands",
            "tokenizer_commands",
            "measure_commands",
            "commandline",
            "launch",
            "prepare",
            "stages",
            "hydra_app",
        )
        or FLOOR_OF[part(path)] == 0
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in heavy or name.startswith("headswap.recurrent")
    ]
    assert found == []
