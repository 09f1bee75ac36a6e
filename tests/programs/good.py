"""Does everything right."""

from training import Training

Training().main()
