// Preloaded into nfs-ganesha: it registers its ports with the portmapper, a system service that a test neither has nor
// should start, and ends if it cannot. The ports are known to the test.
extern "C" {
int rpcb_set(unsigned, unsigned, const void*, const void*) { return 1; }
int rpcb_unset(unsigned, unsigned, const void*) { return 1; }
}
