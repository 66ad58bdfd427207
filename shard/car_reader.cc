// car_reader: being written.
