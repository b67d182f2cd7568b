import ij.IJ;
import ij.macro.MacroRunner;
import java.awt.AWTEvent;
import java.awt.Button;
import java.awt.Component;
import java.awt.Container;
import java.awt.Dialog;
import java.awt.Label;
import java.awt.TextArea;
import java.awt.TextField;
import java.awt.Toolkit;
import java.awt.event.ActionEvent;
import java.awt.event.WindowEvent;
import java.io.File;

/**
 * RunMacro FOLDER MACRO: runs a macro as the menu of ImageJ does, with the plugins of a folder; prints the Log window.
 *
 * <p>Dialogs are printed, "DIALOG title | text", and answered with OK, as nobody sits there. Ends with 0 whatever the macro did.
 */
public class RunMacro {
    public static void main(String[] args) throws Exception {
        Toolkit.getDefaultToolkit().addAWTEventListener(RunMacro::answer, AWTEvent.WINDOW_EVENT_MASK);
        Runtime.getRuntime().addShutdownHook(new Thread(RunMacro::printLog)); // also when the time is over
        ij.ImageJ.main(new String[] {"-ijpath", args[0]});
        MacroRunner runner = new MacroRunner(new File(args[1]));
        runner.getThread().join();
        Thread.sleep(100); // a last window may still be opening
        System.exit(0);
    }

    private static void printLog() {
        String log = IJ.getLog();
        System.out.print(log == null ? "" : log);
        System.out.flush();
    }

    private static void answer(AWTEvent event) {
        if (event.getID() != WindowEvent.WINDOW_OPENED || !(event.getSource() instanceof Dialog)) return;
        Dialog dialog = (Dialog) event.getSource();
        StringBuilder text = new StringBuilder();
        read(dialog, text);
        System.out.println("DIALOG " + dialog.getTitle() + " | " + text.toString().trim().replace("\n", " "));
        System.out.flush();
        if (System.getProperty("leave.dialogs") == null) press(dialog);
    }

    private static void read(Container container, StringBuilder text) {
        for (Component c : container.getComponents()) {
            if (c instanceof Label) text.append(((Label) c).getText()).append('\n');
            else if (c instanceof TextArea) text.append(((TextArea) c).getText()).append('\n');
            else if (c instanceof TextField) text.append('<').append(((TextField) c).getText()).append(">\n");
            else if (c.getClass().getSimpleName().equals("MultiLineLabel")) text.append(lines(c)).append('\n');
            if (c instanceof Container) read((Container) c, text);
        }
    }

    private static String lines(Component label) {
        try {
            java.lang.reflect.Field field = label.getClass().getDeclaredField("lines");
            field.setAccessible(true);
            return String.join("\n", (String[]) field.get(label));
        } catch (ReflectiveOperationException e) {
            return "(" + e + ")";
        }
    }

    private static boolean press(Container container) {
        for (Component c : container.getComponents()) {
            if (c instanceof Button && ((Button) c).getLabel().trim().matches("OK|Ok")) {
                for (java.awt.event.ActionListener l : ((Button) c).getActionListeners())
                    l.actionPerformed(new ActionEvent(c, ActionEvent.ACTION_PERFORMED, ((Button) c).getLabel()));
                return true;
            }
            if (c instanceof Container && press((Container) c)) return true;
        }
        return false;
    }
}
