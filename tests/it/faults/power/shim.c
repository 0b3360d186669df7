/* Goes between a program and the kernel (LD_PRELOAD), and writes down in one log, in order, what the program
 * does to the files below one folder: which bytes and names it makes, and which of them it has synced. From this log the
 * tests build what a disk may hold after a power cut. Nothing is really synced.
 *
 * It can also lie: fail a sync, let the disk be full, or move the clock.
 *
 *   SHIM_ROOT     the folder, as an absolute path without links
 *   SHIM_LOG      the log, to which others append too
 *   SHIM_CONTROL  a file of 8-byte numbers, see `struct control`; may change at any time
 *
 * Not seen: raw system calls, stdio, and writes through a shared mapping (which are reported, save for SQLite's -shm). */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536
#define PATH_BYTES 4096

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, SYNC_FAILED, MAKE_DIR, RENAME, UNLINK, REMOVE_DIR,
            DIR_SYNC_BEGIN, DIR_SYNC_END, ALARM };

struct header {
    uint32_t kind;
    uint32_t first_bytes, second_bytes; /* of what follows */
    uint32_t unused;
    uint64_t inode; /* or the number of a sync of a folder */
    uint64_t at;    /* offset, length, or the number of a sync */
};

/* Shared with the tests. */
struct control {
    volatile int64_t clock_shift_ns;
    volatile int64_t fail_sync_in;  /* 1: the next sync of a file fails with EIO; 0: none does */
    volatile int64_t room_bytes;    /* that may be written still, less one; 0: no limit */
    volatile int64_t failed;        /* how often this has lied */
};

struct file {
    int tracked; /* 1 a file, 2 a folder */
    uint64_t inode;
    char *path;
};

static struct file files[FDS];
static char root[PATH_BYTES];
static size_t root_bytes;
static int log_fd = -1;
static struct control *control;
static struct control nothing;
static uint64_t syncs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG"), *path = getenv("SHIM_CONTROL");
    control = &nothing;
    if (path) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        void *mapped = (void *)syscall(SYS_mmap, 0, sizeof nothing, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || mapped == MAP_FAILED) abort();
        syscall(SYS_close, fd);
        control = mapped;
    }
    if (!folder || !log) return;
    root_bytes = strlen(folder);
    memcpy(root, folder, root_bytes + 1);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    /* Out of the way of programs that close the low ones. */
    int high = syscall(SYS_fcntl, log_fd, F_DUPFD_CLOEXEC, 512);
    if (high >= 0) { syscall(SYS_close, log_fd); log_fd = high; }
    if (log_fd < 0) abort();
    syncs = (uint64_t)getpid() << 32;
}

static void note(enum kind kind, uint64_t inode, uint64_t at, const void *first, size_t first_bytes, const void *second,
                 size_t second_bytes) {
    struct header header = {kind, first_bytes, second_bytes, 0, inode, at};
    struct iovec parts[3] = {{&header, sizeof header}, {(void *)first, first_bytes}, {(void *)second, second_bytes}};
    ssize_t all = sizeof header + first_bytes + second_bytes;
    if (syscall(SYS_writev, log_fd, parts, 3) != all) abort();
}

static void note_path(enum kind kind, uint64_t inode, uint64_t at, const char *path) {
    note(kind, inode, at, path, strlen(path), "", 0);
}

/* The path below the root, or none. */
static const char *below(int dir, const char *path, char *room) {
    char here[PATH_BYTES], whole[2 * PATH_BYTES];
    if (log_fd < 0 || !path) return 0;
    if (path[0] != '/' && dir == AT_FDCWD) {
        if (syscall(SYS_getcwd, here, sizeof here) < 0) return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    if (path[0] != '/') {
        if (dir < 0 || dir >= FDS || files[dir].tracked != 2) return 0;
        snprintf(room, PATH_BYTES, "%s%s%s", files[dir].path, files[dir].path[0] ? "/" : "", path);
        return room;
    }
    if (strncmp(path, root, root_bytes) || (path[root_bytes] && path[root_bytes] != '/')) return 0;
    path += root_bytes;
    while (*path == '/') path++;
    snprintf(room, PATH_BYTES, "%s", path);
    for (size_t n = strlen(room); n && room[n - 1] == '/'; n--) room[n - 1] = 0;
    return room;
}

static int is_tracked(int fd) { return log_fd >= 0 && fd >= 0 && fd < FDS && files[fd].tracked; }

static int open_it(int dir, const char *path, int flags, mode_t mode) {
    char room[PATH_BYTES];
    const char *name = below(dir, path, room);
    if (!name) return syscall(SYS_openat, dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat was;
    int existed = syscall(SYS_newfstatat, dir, path, &was, 0) == 0;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    int error = errno;
    struct stat is;
    if (fd >= 0 && fd < FDS && syscall(SYS_fstat, fd, &is) == 0 && (S_ISREG(is.st_mode) || S_ISDIR(is.st_mode))) {
        free(files[fd].path);
        files[fd] = (struct file){S_ISDIR(is.st_mode) ? 2 : 1, is.st_ino, strdup(name)};
        if (!existed) note_path(CREATE, is.st_ino, 0, name);
        else if ((flags & O_TRUNC) && was.st_size) note_path(TRUNCATE, is.st_ino, 0, "");
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) return open_it(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_it(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_it(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_it(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_it(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (!is_tracked(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    free(files[fd].path);
    files[fd] = (struct file){0, 0, 0};
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* How much of a write finds room; none is a full disk. */
static size_t with_room(size_t bytes) {
    int64_t room = control->room_bytes;
    if (room <= 0 || !bytes) return bytes;
    size_t fits = (uint64_t)(room - 1) < bytes ? (size_t)(room - 1) : bytes;
    control->room_bytes = room - fits;
    if (fits < bytes) control->failed++;
    return fits;
}

static int out_of_room(void) { errno = ENOSPC; return -1; }

static ssize_t write_it(int fd, const void *bytes, size_t count, off_t at) {
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    int error;
    size_t fits = with_room(count);
    if (count && !fits) out_of_room();
    else if (at >= 0) done = syscall(SYS_pwrite64, fd, bytes, fits, at);
    else {
        done = syscall(SYS_write, fd, bytes, fits);
        if (done > 0) at = syscall(SYS_lseek, fd, 0, SEEK_CUR) - done;
    }
    error = errno;
    if (done > 0) note(WRITE, files[fd].inode, at, bytes, done, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return is_tracked(fd) ? write_it(fd, bytes, count, -1) : syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return is_tracked(fd) ? write_it(fd, bytes, count, at) : syscall(SYS_pwrite64, fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) { return pwrite(fd, bytes, count, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_tracked(fd)) return syscall(SYS_writev, fd, parts, count);
    /* A short write is a right answer. */
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write_it(fd, parts[i].iov_base, parts[i].iov_len, -1);
    return 0;
}

int ftruncate(int fd, off_t length) {
    if (!is_tracked(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) note_path(TRUNCATE, files[fd].inode, length, "");
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int refuse_to_allocate(int fd) {
    if (is_tracked(fd)) note_path(ALARM, 0, 0, "space was allocated without a write");
    return EOPNOTSUPP;
}
int posix_fallocate(int fd, off_t at, off_t length) { (void)at; (void)length; return refuse_to_allocate(fd); }
int posix_fallocate64(int fd, off_t at, off_t length) { (void)at; (void)length; return refuse_to_allocate(fd); }
int fallocate(int fd, int mode, off_t at, off_t length) {
    (void)mode; (void)at; (void)length;
    errno = refuse_to_allocate(fd);
    return -1;
}

void *mmap64(void *where, size_t bytes, int protection, int flags, int fd, off_t at) {
    if (is_tracked(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) {
        const char *path = files[fd].path;
        size_t n = strlen(path);
        if (n < 4 || strcmp(path + n - 4, "-shm")) note_path(ALARM, 0, 0, "a file is written through a mapping");
    }
    return (void *)syscall(SYS_mmap, where, bytes, protection, flags, fd, at);
}
void *mmap(void *where, size_t bytes, int protection, int flags, int fd, off_t at) {
    return mmap64(where, bytes, protection, flags, fd, at);
}

static int sync_it(int fd) {
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs, inode = files[fd].inode;
    int is_folder = files[fd].tracked == 2, fails = 0;
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", files[fd].path);
    if (!is_folder && control->fail_sync_in > 0 && --control->fail_sync_in == 0) {
        fails = 1;
        control->failed++;
    }
    if (is_folder) note_path(DIR_SYNC_BEGIN, 0, number, path);
    else note_path(fails ? SYNC_FAILED : SYNC_BEGIN, inode, number, "");
    pthread_mutex_unlock(&lock);
    if (fails) { errno = EIO; return -1; }
    struct timespec a_while = {0, 300000};
    syscall(SYS_nanosleep, &a_while, 0);
    pthread_mutex_lock(&lock);
    if (is_folder) note_path(DIR_SYNC_END, 0, number, path);
    else note_path(SYNC_END, inode, number, "");
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return is_tracked(fd) ? sync_it(fd) : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return is_tracked(fd) ? sync_it(fd) : syscall(SYS_fdatasync, fd); }

static int make_dir(int dir, const char *path, mode_t mode) {
    char room[PATH_BYTES];
    const char *name = below(dir, path, room);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_mkdirat, dir, path, mode);
    if (name && result == 0) note_path(MAKE_DIR, 0, 0, name);
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t mode) { return make_dir(AT_FDCWD, path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return make_dir(dir, path, mode); }

static int rename_it(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char from_room[PATH_BYTES], to_room[PATH_BYTES];
    const char *old = below(from_dir, from, from_room), *new = below(to_dir, to, to_room);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0 && old && new) note(RENAME, 0, 0, old, strlen(old), new, strlen(new));
    else if (result == 0 && (old || new)) note_path(ALARM, 0, 0, "a file came or went over the edge of the folder");
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *from, const char *to) { return rename_it(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return rename_it(from_dir, from, to_dir, to, 0); }
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return rename_it(from_dir, from, to_dir, to, flags);
}

static int remove_it(int dir, const char *path, int flags) {
    char room[PATH_BYTES];
    const char *name = below(dir, path, room);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_unlinkat, dir, path, flags);
    if (name && result == 0) note_path(flags & AT_REMOVEDIR ? REMOVE_DIR : UNLINK, 0, 0, name);
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return remove_it(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return remove_it(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int dir, const char *path, int flags) { return remove_it(dir, path, flags); }
int remove(const char *path) { return remove_it(AT_FDCWD, path, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char room[PATH_BYTES];
    if (below(to_dir, to, room)) note_path(ALARM, 0, 0, "a file was given a second name");
    return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* The clock on the wall; the one that only grows stays right. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_nsec + control->clock_shift_ns % 1000000000;
        int64_t s = now->tv_sec + control->clock_shift_ns / 1000000000;
        if (ns < 0) { ns += 1000000000; s--; }
        if (ns >= 1000000000) { ns -= 1000000000; s++; }
        now->tv_sec = s;
        now->tv_nsec = ns;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *also) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (also) *also = precise.tv_sec;
    return precise.tv_sec;
}
