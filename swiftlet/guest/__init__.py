"""Layer 4: drivers that start guests. They execute a Bundle and report; they never decide what should run or where."""
