// car_index: being written.
