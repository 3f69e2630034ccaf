# The smallest PSGI app: what the vassal of this folder serves.
my $app = sub {
    my $env = shift;
    return [200, ['Content-Type' => 'text/plain'], ["hello from $env->{PATH_INFO}\n"]];
};
