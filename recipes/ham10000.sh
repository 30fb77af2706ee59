#!/usr/bin/env bash
# HAM10000, prepared by: python -m util.prepare ham10000 DOWNLOAD data/ham10000
NAME=ham10000 CLASSES=7
source "$(dirname "$0")/paper.sh"
