"""The paper's experiment as far as a CPU goes: runs declared as commands, their figures gathered, told and drawn."""
