# Creates the virtual environment of a job with the machine's pip in it. Copying takes a fraction of the time of ensurepip.
import importlib.metadata, os, pathlib, shutil, subprocess, sys, venv

root = pathlib.Path(sys.argv[1])
venv.create(root, symlinks=True, with_pip=False)
python = root / "bin" / "python"
query = "import sysconfig; print(sysconfig.get_path('purelib'))"
packages = pathlib.Path(subprocess.check_output([python, "-c", query], text=True).strip())
packages.mkdir(parents=True, exist_ok=True)
# From Python 3.12 on an environment has no setuptools.
wanted = ["pip"] if sys.version_info >= (3, 12) else ["pip", "setuptools"]
folders = {"pip": ["pip"], "setuptools": ["setuptools", "pkg_resources", "_distutils_hack"]}
for name in wanted:
    try:
        description = pathlib.Path(importlib.metadata.distribution(name)._path)
    except importlib.metadata.PackageNotFoundError:
        continue
    for folder in [*folders[name], description.name]:
        source = description.parent / folder
        if source.is_dir():
            shutil.copytree(source, packages / folder, dirs_exist_ok=True)
if not (packages / "pip").is_dir():
    subprocess.run([python, "-m", "ensurepip"], check=True)
for name in ["pip", "pip3"]:
    program = root / "bin" / name
    program.write_text(f"#!/bin/sh\nexec '{python}' -m pip \"$@\"\n")
    program.chmod(0o755)
