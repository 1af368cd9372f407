"""Circles of imports between the modules of one folder, for tools/measure.

Two modules of a folder (or of a crate's root) are in a circle when each reaches the other by `crate::`, `self::` and `super::` paths
outside tests. A path counts for the module that defines the item: a re-export (`pub use`) is followed, so that it hides no arrow.
Imports of a parent or a child are not arrows between siblings and don't count.
"""

import re
from collections import defaultdict

REEXPORTS_MAX = 8


def module_path(file_name):
    """`crates/core/src/run/gate/mod.rs` is the module ("run", "gate")."""
    *folders, last = file_name.split("/")[3:]
    stem = last.removesuffix(".rs")
    return tuple(folders) if stem in ("mod", "lib", "main") else (*folders, stem)


def use_tree_paths(tree):
    """The paths of `a::{b, c::{d as e}}`, as lists of names."""
    opening = tree.find("{")
    if opening < 0:
        path = re.sub(r"\s+as\s+\w+", "", tree)
        return [[name.strip() for name in path.split("::") if name.strip()]]
    prefix = [name.strip() for name in tree[:opening].split("::") if name.strip()]
    depth, start, branches = 0, opening + 1, []
    for match in re.compile(r"[{},]").finditer(tree, opening):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if (match[0] == "," and depth == 1) or depth == 0:
            branches.append(tree[start:match.start()])
            start = match.end()
        if depth == 0:
            break
    return [prefix + path for branch in branches if branch.strip() for path in use_tree_paths(branch)]


def paths(file):
    """(offset, names, whether it is a re-export) of each path outside tests."""
    uses = []
    for match in re.finditer(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", file.code):
        if not file.in_test(match.start()):
            uses.append(match.span())
            for path in use_tree_paths(match[2]):
                yield match.start(2), path, match[1] is not None
    for match in re.finditer(r"\b(?:crate|super|self)(?:::\s*\w+)+", file.code):
        if not file.in_test(match.start()) and not any(start <= match.start() < end for start, end in uses):
            yield match.start(), re.split(r"::\s*", match[0]), False


class CrateModules:
    """The modules of one crate and the paths between them."""

    def __init__(self, files):
        self.modules = {()}
        for file in files:
            path = module_path(file.name)
            self.modules.update(path[:length] for length in range(len(path) + 1))
        self.references, self.exports = [], {}
        for file in files:
            module = module_path(file.name)
            for offset, names, is_export in paths(file):
                target = self.absolute(module, names)
                if target is not None:
                    self.references.append((file, offset, module, target))
                    if is_export:
                        self.exports[module, target[-1]] = target

    def absolute(self, module, names):
        first, *rest = names
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return (*module, *rest)
        if first == "super":
            while names and names[0] == "super":
                module, names = module[:-1], names[1:]
            return (*module, *names)
        return (*module, *names) if (*module, first) in self.modules else None

    def defining_module(self, path):
        for _ in range(REEXPORTS_MAX):
            length = next(length for length in range(len(path), -1, -1) if path[:length] in self.modules)
            module, rest = path[:length], path[length:]
            exported = self.exports.get((module, rest[0])) if rest else None
            if exported is None or exported == path:
                break
            path = (*exported, *rest[1:])
        return module

    def sibling_imports(self):
        """{folder: {module: {imported module: [(file, offset)]}}}"""
        imports = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for file, offset, module, target in self.references:
            target = self.defining_module(target)
            shared = 0
            while shared < min(len(module), len(target)) and module[shared] == target[shared]:
                shared += 1
            if shared < len(module) and shared < len(target):
                imports[module[:shared]][module[shared]][target[shared]].append((file, offset))
        return imports


def circles(imports):
    """Groups of modules that reach each other, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in imports.get(module, {}):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = set(stack[stack.index(module):])
            del stack[stack.index(module):]
            if len(group) > 1:
                found.append(group)

    for module in list(imports):
        if module not in index:
            visit(module)
    return found


def modules_in_circles(files):
    """(file, offset, what) for each module that is in a circle with siblings: its first import into the circle."""
    crates = defaultdict(list)
    for file in files:
        crates[file.name.split("/")[1]].append(file)
    for crate_files in crates.values():
        for folder, imports in sorted(CrateModules(crate_files).sibling_imports().items()):
            for circle in circles(imports):
                for module in sorted(circle):
                    inside = {other: places for other, places in imports[module].items() if other in circle}
                    file, offset = min(inside[min(inside)], key=lambda place: (place[0].name, place[1]))
                    yield file, offset, f"{'::'.join((*folder, module))} imports {', '.join(sorted(inside))}"
