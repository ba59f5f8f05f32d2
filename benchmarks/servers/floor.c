/*
 * The floor: what one `send()` for each recipient costs, with nothing around it.
 *
 * Takes WebSocket clients of the load generator, which does not look at the key in the answer, and
 * obeys its standard input like any other server: one JSON object a line. It knows `broadcast` and
 * `count`. What is to leave in one turn for a client leaves in one call.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, EVENTS = 256, LINE = 65536 };

static const char GREETING[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

static int *members; /* descriptors of clients that have shaken hands */
static int *places;  /* by descriptor: its place in `members`, or -1 */
static int count;
static int limit;
static int watch;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long number(const char *request, const char *name, long otherwise) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *found = strstr(request, key);
    return found ? atol(found + strlen(key)) : otherwise;
}

static void observe(int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    if (epoll_ctl(watch, EPOLL_CTL_ADD, descriptor, &event)) fail("epoll_ctl");
}

static void drop(int descriptor) {
    int place = places[descriptor];
    if (place >= 0) {
        members[place] = members[--count];
        places[members[place]] = place;
        places[descriptor] = -1;
    }
    close(descriptor);
}

static void write_all(int descriptor, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(descriptor, data, length, MSG_NOSIGNAL);
        if (sent < 0) return; /* it has left, which is read later */
        data += sent;
        length -= sent;
    }
}

static size_t frame(char *into, size_t size) {
    size_t head = 2;
    into[0] = (char)0x81;
    if (size < 126) {
        into[1] = (char)size;
    } else if (size < 65536) {
        into[1] = 126;
        into[2] = (char)(size >> 8);
        into[3] = (char)size;
        head = 4;
    } else {
        into[1] = 127;
        for (int byte = 0; byte < 8; byte++) into[2 + byte] = (char)((unsigned long)size >> (56 - 8 * byte));
        head = 10;
    }
    memset(into + head, 'x', size);
    return head + size;
}

static void broadcast(const char *request) {
    long messages = number(request, "messages", 1), per_turn = number(request, "per_turn", 1);
    size_t size = (size_t)number(request, "size", 64);
    char *data = malloc((size + 10) * (size_t)per_turn);
    if (!data) fail("malloc");
    size_t length = 0;
    for (long copy = 0; copy < per_turn; copy++) length += frame(data + length, size);
    for (long left = messages; left > 0; left -= per_turn) {
        size_t part = left < per_turn ? length / (size_t)per_turn * (size_t)left : length;
        for (int place = 0; place < count; place++) write_all(members[place], data, part);
    }
    free(data);
}

static void obey(void) {
    static char request[LINE];
    if (!fgets(request, sizeof request, stdin)) exit(0);
    if (strstr(request, "\"broadcast\"")) {
        broadcast(request);
        puts("{\"result\": null}");
    } else {
        printf("{\"result\": %d}\n", count);
    }
    fflush(stdout);
}

static void hear(int descriptor) {
    static char data[LINE];
    ssize_t length = recv(descriptor, data, sizeof data, 0);
    if (length <= 0 || (places[descriptor] >= 0 && (data[0] & 0x0F) == 0x08)) {
        drop(descriptor);
    } else if (places[descriptor] < 0) {
        write_all(descriptor, GREETING, sizeof GREETING - 1);
        places[descriptor] = count;
        members[count++] = descriptor;
    }
}

int main(int argc, char **argv) {
    if (argc > 2) { /* --core N */
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(atoi(argv[2]), &cores);
        if (sched_setaffinity(0, sizeof cores, &cores)) fail("sched_setaffinity");
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    limit = (int)files.rlim_max;
    members = malloc(sizeof *members * (size_t)limit);
    places = malloc(sizeof *places * (size_t)limit);
    if (!members || !places) fail("malloc");
    for (int descriptor = 0; descriptor < limit; descriptor++) places[descriptor] = -1;

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, BACKLOG)) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length)) fail("getsockname");
    watch = epoll_create1(0);
    observe(listener);
    observe(STDIN_FILENO);
    setvbuf(stdin, NULL, _IONBF, 0); /* else epoll would not know of a line that is read already */
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);

    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(watch, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int index = 0; index < ready; index++) {
            int descriptor = events[index].data.fd;
            if (descriptor == STDIN_FILENO) {
                obey();
            } else if (descriptor == listener) {
                int client = accept(listener, NULL, NULL), on = 1;
                if (client < 0) fail("accept");
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* as asyncio does */
                observe(client);
            } else {
                hear(descriptor);
            }
        }
    }
}
