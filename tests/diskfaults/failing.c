/* A disk that fails, or a process that is killed, at the nth call that changes a file below a folder.

   Loaded with LD_PRELOAD. What it shall do stands in the environment, and may come after the start:

       DISK_FOLDER  only calls on files below it count
       DISK_HOW     fail: the call does nothing and gives EIO; half: a write writes a half, and only what
                    comes next fails; kill: SIGKILL in place of the call; log: nothing happens to it
       DISK_POINT   only calls of this name count, such as "fdatasync jobs.db-wal"; empty: all
       DISK_NTH     which of them, from 1
       DISK_NEXT    so many calls of any name that follow fail as well
       DISK_LOG     a file that gets the name of each call that counts, and "! name" of the one that was hit

   In names of calls, numbers and ids are written as #. */

#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long seen, left_to_fail;

/* Files that are named by ids. */
static int is_named_by_id(const char *path) { return strstr(path, "jobs/files/") != NULL; }

static void write_name(char *into, size_t size, const char *call, const char *path) {
    size_t at = (size_t)snprintf(into, size, "%s ", call);
    const char *last = is_named_by_id(path) ? strstr(path, "files/") + 6 : NULL;
    for (const char *c = path; *c && at + 2 < size; c++) {
        if (c == last) {
            into[at++] = '#';
            break;
        }
        if (!isdigit((unsigned char)*c))
            into[at++] = *c;
        else if (into[at - 1] != '#')
            into[at++] = '#';
    }
    into[at] = 0;
}

static void log_line(const char *mark, const char *name) {
    const char *path = getenv("DISK_LOG");
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s%s\n", mark, name);
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file >= 0) {
        syscall(SYS_write, file, line, size);
        close(file);
    }
}

/* Tell whether this call is to fail; 2: by a half. */
static int hits(const char *call, const char *path) {
    const char *folder = getenv("DISK_FOLDER"), *how = getenv("DISK_HOW"), *point = getenv("DISK_POINT");
    const char *nth = getenv("DISK_NTH");
    if (!folder || !how || strncmp(path, folder, strlen(folder)) != 0 || path[strlen(folder)] != '/')
        return 0;
    char name[PATH_MAX + 64];
    write_name(name, sizeof name, call, path + strlen(folder) + 1);
    if (__atomic_load_n(&left_to_fail, __ATOMIC_SEQ_CST) > 0) {
        __atomic_sub_fetch(&left_to_fail, 1, __ATOMIC_SEQ_CST);
        log_line("! ", name);
        return 1;
    }
    if (point && *point && strcmp(point, name) != 0)
        return 0;
    long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    int is_it = strcmp(how, "log") != 0 && nth && number == atol(nth);
    log_line(is_it ? "! " : "", name);
    if (is_it && strcmp(how, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (is_it && getenv("DISK_NEXT"))
        __atomic_store_n(&left_to_fail, atol(getenv("DISK_NEXT")), __ATOMIC_SEQ_CST);
    return is_it ? 1 + (strcmp(how, "half") == 0) : 0;
}

static int hits_file(const char *call, int file) {
    if (!getenv("DISK_FOLDER"))
        return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return hits(call, path);
}

static int hits_path(const char *call, const char *path) {
    char whole[PATH_MAX];
    if (*path != '/') {
        if (!getcwd(whole, sizeof whole))
            return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    return hits(call, path);
}

#define FAIL return errno = EIO, -1

#define ON_FILE(result, name, parameters, ...)                                                               \
    static result(*name##_real) parameters;                                                                   \
    result name parameters {                                                                                  \
        int before = errno;                                                                                   \
        if (hits_file(#name, file))                                                                           \
            FAIL;                                                                                             \
        errno = before;                                                                                       \
        if (!name##_real)                                                                                     \
            name##_real = dlsym(RTLD_NEXT, #name);                                                            \
        return name##_real(__VA_ARGS__);                                                                       \
    }

#define ON_PATH(name, parameters, path, ...)                                                                  \
    static int(*name##_real) parameters;                                                                      \
    int name parameters {                                                                                     \
        int before = errno;                                                                                   \
        if (hits_path(#name, path))                                                                           \
            FAIL;                                                                                             \
        errno = before;                                                                                       \
        if (!name##_real)                                                                                     \
            name##_real = dlsym(RTLD_NEXT, #name);                                                            \
        return name##_real(__VA_ARGS__);                                                                       \
    }

static ssize_t (*write_real)(int file, const void *data, size_t size);

ssize_t write(int file, const void *data, size_t size) {
    int before = errno, hit = hits_file("write", file);
    if (hit == 1)
        FAIL;
    errno = before;
    if (!write_real)
        write_real = dlsym(RTLD_NEXT, "write");
    return write_real(file, data, hit ? size / 2 : size);
}

ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, data, size, at)
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, data, size, at)
ON_FILE(int, ftruncate64, (int file, off64_t size), file, size)
ON_FILE(int, ftruncate, (int file, off_t size), file, size)
ON_FILE(int, fsync, (int file), file)
ON_FILE(int, fdatasync, (int file), file)
ON_PATH(rename, (const char *from, const char *to), to, from, to)
ON_PATH(renameat, (int from_in, const char *from, int to_in, const char *to), to, from_in, from, to_in, to)
ON_PATH(unlink, (const char *path), path, path)
ON_PATH(unlinkat, (int in, const char *path, int flags), path, in, path, flags)
