/*
 * /bin/sh of the suite's busybox image. Debian's ash drops environment variables whose names are no
 * identifiers, which the ash of upstream's image keeps: where there is one, bash is the shell. Its
 * messages are others, and specs read those of ash.
 */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

static int is_identifier(const char *variable)
{
    size_t length = strspn(variable, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");
    return length > 0 && variable[length] == '=' && strchr("0123456789", variable[0]) == NULL;
}

int main(int argc, char **argv)
{
    (void)argc;
    for (char **variable = environ; *variable != NULL; variable++) {
        if (!is_identifier(*variable))
            execv("/bin/bash", argv);
    }
    execv("/bin/busybox", argv);
    return 127;
}
