//! Every bound of the simulation, in one place. This file holds no behaviour.
