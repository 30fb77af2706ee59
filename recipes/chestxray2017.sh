#!/usr/bin/env bash
# ChestXRay2017, prepared by: python -m util.prepare chestxray2017 DOWNLOAD data/chestxray2017
NAME=chestxray2017 CLASSES=2
source "$(dirname "$0")/paper.sh"
