#!/bin/sh
# What the container files install into /opt/handloom (or $VENV), in two steps, so that the first can be kept:
#   install.sh packages   everything that handloom's extras ask for, and Ray's dashboard (job submission, KubeRay)
#   install.sh code       handloom itself, from this folder
# Run in a folder that holds pyproject.toml, constraints.txt and, for the second step, src/.
set -eu
pip="${VENV:-/opt/handloom}/bin/python -m pip"

case "${1:-}" in
packages)
    # setuptools wants a package to build: the extras are read with an empty one in its place.
    if [ ! -e src ]; then
        mkdir -p src/handloom && : > src/handloom/__init__.py && made=1
    fi
    $pip install --constraint constraints.txt '.[extract,train,models]' 'ray[default]'
    $pip uninstall --yes handloom
    if [ -n "${made:-}" ]; then
        rm -r src
    fi
    # mediapipe asks for the OpenCV with windows, which needs libGL.so.1; both fill the same folder.
    $pip uninstall --yes opencv-contrib-python
    $pip install --constraint constraints.txt --no-deps opencv-contrib-python-headless
    ;;
code)
    $pip install --no-deps .
    ;;
*)
    echo "usage: install.sh packages|code" >&2
    exit 2
    ;;
esac
