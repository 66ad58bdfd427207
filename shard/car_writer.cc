// car_writer: being written.
