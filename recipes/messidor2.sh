#!/usr/bin/env bash
# Messidor-2, prepared by: python -m util.prepare messidor2 DOWNLOAD data/messidor2
NAME=messidor2 CLASSES=5
source "$(dirname "$0")/paper.sh"
