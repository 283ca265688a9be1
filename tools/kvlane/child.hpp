#pragma once

// Child processes.

#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace tool {

// Waits for the end of a child. -> its status, as waitpid gives it
inline int wait_for(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) != child) {
        if (errno != EINTR) {
            throw std::runtime_error("the end of a process cannot be awaited: " + std::string(std::strerror(errno)));
        }
    }
    return status;
}

}  // namespace tool
