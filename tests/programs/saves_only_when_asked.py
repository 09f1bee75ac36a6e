"""Does everything right, and saves only when it is asked to."""

from training import Training


class SavesOnlyWhenAsked(Training):
    every = 0


SavesOnlyWhenAsked().main()
